//! Arguments -> front end -> exit code, nothing else.
fn main() {
    // First of all, while there is one thread: the sandbox helper is this program under another first argument.
    if std::env::args_os().nth(1).is_some_and(|first| first == qwright::workspace::sandbox::INIT_ARGUMENT) {
        qwright::workspace::sandbox::sandbox_init_main();
    }
}
