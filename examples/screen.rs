//! How the terminal interface behaves under load: from a key to the screen while a model writes and the transcript is long,
//! what it takes when nothing happens, how much memory, and how soon Esc ends an answer. It drives the binary in a
//! pseudo-terminal of 120 by 40, as a user's terminal does.
//!
//!     cargo build --release && cargo run --release --example screen -- MODEL.gguf [LINES [KEYS]]
//!
//! A key's time is from its byte being written to the screen, as vt100 reads it, showing it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What does not come in this time never will.
const HANGS: Duration = Duration::from_secs(120);
const CTRL_O: &str = "\x0f";
const CTRL_U: &str = "\x15";
const ESC: &str = "\x1b";

struct Terminal {
    writer: Box<dyn Write + Send>,
    seen: Arc<(Mutex<vt100::Parser>, Condvar)>,
    pid: u32,
}

impl Terminal {
    fn open(model: &str, folder: &std::path::Path) -> Self {
        let size = PtySize { cols: 120, rows: 40, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap().with_file_name("../qwright"));
        command.args(["-m", model, "-y"]);
        command.cwd(folder);
        command.env("TERM", "xterm-256color");
        command.env("XDG_STATE_HOME", folder.join(".state"));
        let child = pair.slave.spawn_command(command).unwrap();
        let seen = Arc::new((Mutex::new(vt100::Parser::new(40, 120, 0)), Condvar::new()));
        let (mut reader, fed) = (pair.master.try_clone_reader().unwrap(), seen.clone());
        let writer = pair.master.take_writer().unwrap();
        let pid = child.process_id().unwrap();
        std::thread::spawn(move || {
            // Both ends stay open as long as the program runs.
            let _ends = (pair, child);
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                fed.0.lock().unwrap().process(&bytes[..count]);
                fed.1.notify_all();
            }
        });
        Self { writer, seen, pid }
    }

    /// Writes `keys` and waits until the screen shows what it should.
    fn keys(&mut self, keys: &str, shown: impl Fn(&str) -> bool) -> Duration {
        let begun = Instant::now();
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
        self.until(shown);
        begun.elapsed()
    }

    fn until(&self, shown: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        let mut parser = self.seen.0.lock().unwrap();
        loop {
            let screen = parser.screen().contents();
            if shown(&screen) {
                return;
            }
            assert!(begun.elapsed() < HANGS, "this did not come:\n{screen}");
            parser = self.seen.1.wait_timeout(parser, Duration::from_secs(1)).unwrap().0;
        }
    }

    /// Seconds of processor time so far.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    /// Megabytes that are not the model's file.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    fn idle(&self, what: &str) {
        const WHILE: f64 = 10.0;
        std::thread::sleep(Duration::from_secs(2));
        let before = self.processor();
        std::thread::sleep(Duration::from_secs_f64(WHILE));
        let share = (self.processor() - before) / WHILE * 100.0;
        println!("{what}: idle {share:.1} % of a processor, {} MB besides the model's file", self.memory());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = arguments.first().expect("usage: screen MODEL.gguf [LINES [KEYS]]");
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |n| n.parse().expect("a number"));
    let (lines, keys) = (number(1, 100_000), number(2, 300));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "a\n").unwrap();
    let begun = Instant::now();
    let mut terminal = Terminal::open(model, folder.path());
    terminal.until(|screen| screen.contains('>'));
    println!("the screen is there after {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    terminal.until(|screen| screen.contains("sandbox"));
    // What is certain of the first request is read by then.
    std::thread::sleep(Duration::from_secs(15));
    terminal.idle("at the start");
    if lines > 0 {
        let command = format!("!seq 1 {lines}\r");
        terminal.keys(&command, |screen| {
            screen.contains(&format!("{lines} lines")) || screen.contains(&lines.to_string())
        });
        std::thread::sleep(Duration::from_secs(1));
        terminal.keys(CTRL_O, |_| true);
        std::thread::sleep(Duration::from_secs(2));
        terminal.idle(&format!("with {lines} lines, opened"));
    }
    terminal.keys("What are the numbers from one to three hundred in words?\r", |screen| {
        screen.contains("tok/s")
    });
    std::thread::sleep(Duration::from_secs(3));
    let mut times = Vec::new();
    let mut typed = String::new();
    let mut random = 7u64;
    while times.len() < keys {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(40 + (random >> 33) % 90));
        if typed.len() == 40 {
            terminal.keys(CTRL_U, |screen| !screen.contains(&typed));
            typed.clear();
        }
        let key = char::from(b'a' + ((random >> 40) % 26) as u8);
        typed.push(key);
        let expected = format!("> {typed}");
        times.push(terminal.keys(&key.to_string(), |screen| screen.contains(&expected)));
    }
    terminal.keys(CTRL_U, |screen| !screen.contains(&typed));
    let writing = terminal.seen.0.lock().unwrap().screen().contents().contains("Esc");
    times.sort();
    let ms = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{keys} keys while the model {}: median {:.1} ms, 95th percentile {:.1} ms, most {:.1} ms; {} MB",
        if writing { "writes" } else { "HAS ENDED" },
        ms(50),
        ms(95),
        ms(100),
        terminal.memory()
    );
    let ended = terminal.keys(ESC, |screen| screen.contains("nterrupted"));
    println!("Esc ends the answer after {:.0} ms", ended.as_secs_f64() * 1e3);
    terminal.keys("\x03\x03", |_| true);
}
