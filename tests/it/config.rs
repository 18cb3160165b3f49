//! Layered settings: who wins, where a value came from, and what a wrong setting is told.

use qwright::config::{
    ApprovalMode, Config, ConfigError, Env, KvKind, LoadOptions, Origin, SandboxMode, Switch, repository_file,
};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

fn env(pairs: &[(&str, &str)]) -> Env {
    Env::from_pairs(pairs.iter().map(|(k, v)| (*k, OsStr::new(*v))))
}

fn with_user_file(text: &str) -> (tempfile::TempDir, LoadOptions) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("qwright")).unwrap();
    std::fs::write(dir.path().join("qwright/config.toml"), text).unwrap();
    let options =
        LoadOptions { env: env(&[("XDG_CONFIG_HOME", dir.path().to_str().unwrap())]), ..Default::default() };
    (dir, options)
}

fn error_of(text: &str) -> String {
    let (_dir, options) = with_user_file(text);
    Config::load(&options).unwrap_err().to_string()
}

#[test]
fn each_layer_wins_over_the_one_before_and_says_so() {
    let (dir, mut options) =
        with_user_file("# mine\nmodel = \"from-user\"\nkv = \"f32\"\nctx = 4096\nseed = 1\nthreads = 3\n");
    let repository = dir.path().join("repo.toml");
    std::fs::write(&repository, "kv = \"f16\"\nctx = 8192\nseed = 2\n").unwrap();
    options.repository_file = Some(repository.clone());
    options.trusted = true;
    let xdg = dir.path().to_str().unwrap();
    options.env = env(&[("XDG_CONFIG_HOME", xdg), ("QWRIGHT_CTX", "16384"), ("QWRIGHT_SEED", "3")]);
    options.flags = vec![("seed", "4".into(), "--seed")];
    let config = Config::load(&options).unwrap();

    assert_eq!(config.settings.model.as_deref(), Some("from-user"));
    assert_eq!(config.settings.kv, Some(KvKind::F16));
    assert_eq!((config.settings.ctx, config.settings.seed), (Some(16384), Some(4)));
    let user = dir.path().join("qwright/config.toml");
    assert_eq!(config.origin("model"), &Origin::UserFile { path: user, line: 2 });
    assert_eq!(config.origin("kv"), &Origin::RepositoryFile { path: repository, line: 1 });
    assert_eq!(config.origin("ctx").to_string(), "QWRIGHT_CTX");
    assert_eq!(config.origin("seed").to_string(), "--seed");
    assert_eq!(config.origin("sandbox"), &Origin::Default);
}

#[test]
fn an_untrusted_repository_is_not_even_read() {
    let (dir, mut options) = with_user_file("seed = 1\n");
    let repository = dir.path().join("repo.toml");
    std::fs::write(&repository, "this is no TOML").unwrap();
    options.repository_file = Some(repository.clone());
    let config = Config::load(&options).unwrap();
    assert_eq!(config.settings.seed, Some(1));
    assert_eq!(config.ignored_file, Some(repository));
}

#[test]
fn a_trusted_repository_cannot_do_away_with_sandbox_or_questions_nor_say_where_the_conversation_goes() {
    for line in [
        "sandbox = \"none\"",
        "approval_mode = \"yolo\"",
        "endpoint = \"http://elsewhere.example\"",
        "allow = [\"edit\"]",
        "deny = [\"edit\"]",
    ] {
        let (dir, mut options) = with_user_file(line);
        assert!(Config::load(&options).is_ok(), "the user may: {line}");
        let repository = dir.path().join("repo.toml");
        std::fs::write(&repository, line).unwrap();
        options.repository_file = Some(repository);
        options.trusted = true;
        let error = Config::load(&options).unwrap_err().to_string();
        assert!(error.contains("repo.toml:1") && error.contains("a repository may not"), "{error}");
    }
}

#[test]
fn every_kind_of_value_is_read() {
    let (_dir, options) = with_user_file(concat!(
        "sandbox = \"reduced\"\napproval_mode = \"auto-edit\"\ntemperature = 0\nmax_turns = 10\n",
        "max_tool_calls = 0\nmax_tokens = 1_000\nmax_wall_time = \"2h\"\nctx = 0x1000\nmasks = \"off\"\n"
    ));
    let s = Config::load(&options).unwrap().settings;
    assert_eq!(s.sandbox, SandboxMode::Reduced);
    assert_eq!(s.approval_mode, Some(ApprovalMode::AutoEdit));
    assert_eq!(s.temperature, Some(0.0));
    assert_eq!((s.max_turns, s.max_tool_calls, s.max_tokens), (Some(10), Some(0), Some(1000)));
    assert_eq!(s.max_wall_time, Some(Duration::from_secs(7200)));
    assert_eq!(s.ctx, Some(4096));
    assert_eq!((s.masks, s.drafts), (Some(Switch::Off), None));
}

#[test]
fn lists_grow_with_each_layer() {
    let (dir, mut options) = with_user_file("allow = [\"edit\", \"glob\"]\ndeny = \"write_file\"\n");
    let xdg = dir.path().to_str().unwrap();
    options.env = env(&[("XDG_CONFIG_HOME", xdg), ("QWRIGHT_ALLOW", "a(b, c)\n\n d ")]);
    options.flags = vec![("deny", "e".into(), "--deny"), ("deny", "f".into(), "--deny")];
    let config = Config::load(&options).unwrap();
    assert_eq!(config.settings.allow, ["edit", "glob", "a(b, c)", "d"]);
    assert_eq!(config.settings.deny, ["write_file", "e", "f"]);
    assert_eq!(config.origin("allow").to_string(), "QWRIGHT_ALLOW");
    assert!(
        error_of("\nallow = [\n\"edit\",\n3]")
            .contains("config.toml:4: allow: what is in the list is not text")
    );
}

#[test]
fn a_wrong_setting_is_named_with_its_line_and_what_was_meant() {
    let error = error_of("seed = 1\n\nmodle = \"x\"\n");
    assert!(error.contains("config.toml:3: unknown setting `modle`; did you mean `model`?"), "{error}");
    let error = error_of("approval-mode = \"plan\"\n");
    assert!(error.contains("did you mean `approval_mode`?"), "{error}");
    let error = error_of("frobnicate = 1\n");
    assert!(error.contains("unknown setting `frobnicate`") && !error.contains("did you mean"), "{error}");
    let error = error_of("kv = \"q4\"\n");
    assert!(error.contains("config.toml:1: kv: `q4` is none of f32, f16, q8_0"), "{error}");
    let error = error_of("seed = 1\ntemperature = 3\n");
    assert!(error.contains(":2: temperature: `3` is not a number from 0 to 2"), "{error}");
    for (line, part) in [
        ("backend = \"cuda\"", "`cuda` is none of native, candle"),
        ("threads = 0", "0 is not a whole number from 1 to 1024"),
        ("threads = -1", "`-1` is not a whole number"),
        ("ctx = 99999999999999999999", "is not a whole number"),
        ("endpoint = \"localhost:8000\"", "needs an address like http://127.0.0.1:8000"),
        ("endpoint = \"http:///v1\"", "needs an address"),
        ("endpoint = \"http://me:pass@h\"", "put the key into QWRIGHT_API_KEY"),
        ("endpoint = \"http://h/?key=x\"", "is more than an address"),
        ("model = true", "true is not text"),
        ("model = 3", "is a number; text is needed"),
        ("max_turns = [1]", "a table, list or date"),
        ("drafts = \"no\"", "`no` is none of on, off"),
        ("max_wall_time = \"soon\"", "is not a time"),
        ("temperature = nan", "is not a number from 0 to 2"),
    ] {
        let error = error_of(line);
        assert!(error.contains(part), "{line}: {error}");
    }
    let error = error_of("seed = 1\nmodel = \n");
    assert!(error.contains("config.toml:2:"), "{error}");
}

#[test]
fn a_wrong_variable_or_flag_is_named_too() {
    let mut options = LoadOptions { env: env(&[("QWRIGHT_KV", "q4")]), ..Default::default() };
    assert!(Config::load(&options).unwrap_err().to_string().starts_with("QWRIGHT_KV: kv:"));
    options = LoadOptions { flags: vec![("ctx", "many".into(), "--ctx")], ..Default::default() };
    assert!(Config::load(&options).unwrap_err().to_string().starts_with("--ctx: ctx:"));
}

#[test]
fn directories_follow_xdg_and_a_missing_home_matters_only_when_needed() {
    let dirs = |pairs: &[(&str, &str)]| {
        Config::load(&LoadOptions { env: env(pairs), ..Default::default() }).unwrap().dirs
    };
    let home = dirs(&[("HOME", "/home/u")]);
    assert_eq!(home.config_file().unwrap(), Path::new("/home/u/.config/qwright/config.toml"));
    assert_eq!(home.models().unwrap(), Path::new("/home/u/.cache/qwright/models"));
    assert_eq!(home.state().unwrap(), Path::new("/home/u/.local/state/qwright"));
    let xdg = dirs(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c"), ("XDG_STATE_HOME", "relative")]);
    assert_eq!(xdg.models().unwrap(), Path::new("/c/qwright/models"));
    assert_eq!(xdg.state().unwrap(), Path::new("/home/u/.local/state/qwright"));
    assert_eq!(dirs(&[("QWRIGHT_MODELS_DIR", "/m")]).models().unwrap(), Path::new("/m"));
    let homeless = dirs(&[]);
    assert!(matches!(homeless.models(), Err(ConfigError::NoHome(_))));
    assert!(homeless.state().unwrap_err().to_string().contains("HOME"));
}

#[test]
fn the_repository_file_is_found_from_below_and_not_above_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    let outer = top.join(".qwright");
    let deep = top.join("repo/src/deep");
    std::fs::create_dir_all(&outer).unwrap();
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(outer.join("config.toml"), "").unwrap();
    // Without a repository only the directory itself is trusted, and it may be another user's that lies above.
    assert_eq!(repository_file(&deep), None);
    assert_eq!(repository_file(&top), Some(outer.join("config.toml")));
    std::fs::create_dir_all(top.join("repo/.git")).unwrap();
    assert_eq!(repository_file(&deep), None);
    let inner = top.join("repo/.qwright");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("config.toml"), "").unwrap();
    assert_eq!(repository_file(&deep), Some(inner.join("config.toml")));
}
