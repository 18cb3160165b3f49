//! Arguments -> front end -> exit code, nothing else.
fn main() {}
