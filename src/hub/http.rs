//! One file from the model hub over HTTP: redirects, ranges, and the figures the hub gives for a file.
//!
//! Redirects are followed by hand, for two reasons: a token must never reach another host, and the hub states a
//! large file's size and SHA-256 only on its own answer, before it redirects to the storage. Time-outs are per
//! step: connecting, the first byte, and any silence after it. What the bytes are for is `pull`'s business.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::http::Uri;

/// How long a source may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// Without a byte, before and within the body.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), silence: Duration::from_secs(15) }
    }
}

/// Where files are had, and who asks.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub site: Site,
    pub url: String,
    pub token: Option<String>,
}

/// Whose addresses and names of variables it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Hub,
    /// <https://modelscope.cn>: the same repositories under their own addresses.
    ModelScope,
}

impl Site {
    fn token_variable(self) -> &'static str {
        match self {
            Self::Hub => "HF_TOKEN",
            Self::ModelScope => "MODELSCOPE_API_TOKEN",
        }
    }
}

impl Endpoint {
    /// The public hub, or what `HF_ENDPOINT` and `HF_TOKEN` say.
    pub fn from_env(env: &crate::config::Env) -> Self {
        Self::at(Site::Hub, env.text("HF_ENDPOINT").unwrap_or("https://huggingface.co"), env)
    }

    /// What is asked when the hub does not give a file: ModelScope, or what `MODELSCOPE_ENDPOINT` says. Nobody where only
    /// `HF_ENDPOINT` is named: whoever names a hub of their own means that one.
    pub fn second_from_env(env: &crate::config::Env) -> Option<Self> {
        let named = env.text("MODELSCOPE_ENDPOINT");
        let usual = env.text("HF_ENDPOINT").is_none().then_some("https://modelscope.cn");
        named.or(usual).map(|url| Self::at(Site::ModelScope, url, env))
    }

    fn at(site: Site, url: &str, env: &crate::config::Env) -> Self {
        Self {
            site,
            url: url.trim().trim_end_matches('/').to_string(),
            token: env.text(site.token_variable()).map(|t| t.trim().to_string()).filter(|t| !t.is_empty()),
        }
    }

    pub fn file_url(&self, repository: &str, path: &str) -> String {
        match self.site {
            Site::Hub => format!("{}/{repository}/resolve/main/{path}", self.url),
            Site::ModelScope => format!("{}/models/{repository}/resolve/master/{path}", self.url),
        }
    }

    /// `host[:port]`, for messages: a user's endpoint may carry a password.
    pub fn host(&self) -> String {
        let uri: Option<Uri> = self.url.parse().ok();
        uri.as_ref().and_then(Uri::host).unwrap_or("the model hub").to_string()
    }
}

/// Why a request did not yield the file.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpFailure {
    pub message: String,
    /// Worth the same request again, after a pause.
    pub passing: bool,
    /// The range begins beyond the file's end: what is here is not the beginning of that file.
    pub beyond_end: bool,
}

impl HttpFailure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), passing: false, beyond_end: false }
    }
}

/// A file as the hub offers it.
#[derive(Debug)]
pub struct Offer {
    /// Bytes of the whole file, where the answer says.
    pub total: Option<u64>,
    /// What tells one version of the file from another.
    pub etag: Option<String>,
    /// The hub's own checksum of a large file.
    pub sha256: Option<String>,
    /// Where the body starts in the file: 0 if the range was not honoured.
    pub start: u64,
    pub body: Body,
}

pub struct Body(ureq::BodyReader<'static>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

pub struct Client {
    agent: ureq::Agent,
    timeouts: Timeouts,
}

const MAX_REDIRECTS: usize = 8;

impl Client {
    pub fn new(timeouts: Timeouts) -> Self {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("qwright/", env!("CARGO_PKG_VERSION")))
            // The file's bytes as they are: a compressed body would break ranges and sizes.
            .accept_encoding("identity")
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_send_request(Some(timeouts.silence))
            .timeout_recv_response(Some(timeouts.silence))
            .timeout_per_read(Some(timeouts.silence))
            .build();
        Self { agent: ureq::Agent::new_with_config(config), timeouts }
    }

    /// Runs `work`, and shuts the connections down as soon as `cancel` is raised, so that a silent source
    /// does not hold up the user. The client is of no further use after that.
    pub fn cancellable<T>(&self, cancel: &AtomicBool, work: impl FnOnce(&Self) -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if cancel.load(Ordering::Relaxed) {
                        return self.agent.clone().shutdown();
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            // Also when `work` panics: the watcher must end, or the scope would wait for ever.
            struct Done<'a>(&'a AtomicBool);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _done = Done(&done);
            work(self)
        })
    }

    /// Asks for the file at `url` from byte `from` on. The endpoint's token goes to its own origin only.
    pub fn get(&self, endpoint: &Endpoint, url: &str, from: u64) -> Result<Offer, HttpFailure> {
        let token = endpoint.token.as_deref();
        let mut uri: Uri = url.parse().map_err(|_| HttpFailure::new("its address is not a URL"))?;
        let origin = origin_of(&uri)?;
        let (mut linked_size, mut linked_etag) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let at_home = origin_of(&uri)? == origin;
            let mut request = self.agent.get(&uri);
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            if let (true, Some(token)) = (at_home, token) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| self.transport_failure(&e))?;
            let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
            if at_home {
                linked_size = header("x-linked-size").and_then(|v| v.parse().ok()).or(linked_size);
                linked_etag = header("x-linked-etag").map(unquote).or(linked_etag);
            }
            let status = response.status().as_u16();
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let location = header("location").ok_or_else(|| HttpFailure::new("redirects to nowhere"))?;
                uri = follow(&uri, location)?;
                continue;
            }
            let etag = linked_etag.or_else(|| header("etag").map(unquote));
            let sha256 = etag.clone().filter(|e| e.len() == 64 && e.bytes().all(|b| b.is_ascii_hexdigit()));
            let length: Option<u64> = header("content-length").and_then(|v| v.parse().ok());
            let (start, total) = match status {
                200 => (0, length),
                206 => {
                    let range = header("content-range").and_then(parse_content_range);
                    range.ok_or_else(|| HttpFailure::new("answers a range without saying which"))?
                }
                _ => return Err(status_failure(status, endpoint)),
            };
            if start != 0 && start != from {
                return Err(HttpFailure::new(format!("sent bytes from {start} when asked from {from}")));
            }
            let total = linked_size.or(total);
            let body = Body(response.into_body().into_with_config().limit(u64::MAX).reader());
            return Ok(Offer { total, etag, sha256, start, body });
        }
        Err(HttpFailure::new(format!("redirects more than {MAX_REDIRECTS} times")))
    }

    fn transport_failure(&self, error: &ureq::Error) -> HttpFailure {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        let seconds = |d: Duration| if d.as_secs() > 0 { d.as_secs_f32().round() } else { d.as_secs_f32() };
        let message = match error {
            Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                format!("no connection within {} s", seconds(self.timeouts.connect))
            }
            Timeout(_) => format!("silent for {} s", seconds(self.timeouts.silence)),
            HostNotFound => NO_SUCH_HOST.into(),
            ConnectionFailed => "no connection".into(),
            Io(e) => io_message(e),
            other => other.to_string(),
        };
        HttpFailure::new(super::printable(&message))
    }

    /// What to say of a body that broke off.
    pub fn body_failure(&self, error: &std::io::Error) -> String {
        let silent = error.kind() == std::io::ErrorKind::TimedOut
            || error
                .get_ref()
                .and_then(|e| e.downcast_ref::<ureq::Error>())
                .is_some_and(|e| matches!(e, ureq::Error::Timeout(_)));
        if silent {
            self.transport_failure(&ureq::Error::Timeout(ureq::Timeout::PerRead)).message
        } else {
            super::printable(&io_message(error))
        }
    }
}

const NO_SUCH_HOST: &str = "its name cannot be resolved (no network?)";

fn io_message(error: &std::io::Error) -> String {
    // The resolver's failures have no kind of their own.
    if error.to_string().starts_with("failed to lookup address") {
        return NO_SUCH_HOST.into();
    }
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof => {
            "the connection broke off".into()
        }
        _ => error.to_string(),
    }
}

fn status_failure(status: u16, endpoint: &Endpoint) -> HttpFailure {
    let variable = endpoint.site.token_variable();
    let message = match (status, endpoint.token.is_some()) {
        (401, false) => format!("needs a token: set {variable} (401)"),
        (401, true) => format!("the token in {variable} is not accepted (401)"),
        (403, _) => format!("access is refused: accept the model's terms there, or check {variable} (403)"),
        (404, _) => "has no such file (404)".into(),
        (416, _) => "has fewer bytes than are here already (416)".into(),
        (429, _) => "too many requests (429)".into(),
        (s, _) if s >= 500 => format!("is out of order (status {s})"),
        (s, _) => format!("answers with status {s}"),
    };
    HttpFailure { message, passing: status == 429 || status >= 500, beyond_end: status == 416 }
}

/// Scheme, host and port.
fn origin_of(uri: &Uri) -> Result<(String, String, u16), HttpFailure> {
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err(HttpFailure::new("its address is not http or https")),
    };
    let host = uri.host().ok_or_else(|| HttpFailure::new("its address has no host"))?;
    Ok((scheme, host.to_ascii_lowercase(), uri.port_u16().unwrap_or(default_port)))
}

/// Where a redirect leads. Never from https down to http.
fn follow(from: &Uri, location: &str) -> Result<Uri, HttpFailure> {
    let (scheme, _, _) = origin_of(from)?;
    let authority = from.authority().map(|a| a.as_str()).unwrap_or_default();
    let absolute = if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().map_err(|_| HttpFailure::new("redirects to something that is no URL"))?;
    match (scheme.as_str(), origin_of(&uri)?.0.as_str()) {
        ("https", "http") => Err(HttpFailure::new("redirects from https to http")),
        _ => Ok(uri),
    }
}

fn unquote(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_string()
}

/// `bytes 100-199/200` is (100, Some(200)).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_and_never_leave_tls() {
        let check = |from: &str, location: &str| {
            follow(&from.parse().unwrap(), location).map(|u| u.to_string()).map_err(|e| e.message)
        };
        let base = "https://hub.example/a/b/c?q=1";
        assert_eq!(check(base, "/x?y").unwrap(), "https://hub.example/x?y");
        assert_eq!(check(base, "d").unwrap(), "https://hub.example/a/b/d");
        assert_eq!(check(base, "//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(check(base, "https://cdn.example/x").unwrap(), "https://cdn.example/x");
        assert!(check(base, "http://hub.example/x").unwrap_err().contains("https to http"));
        assert!(check(base, "file:///etc/passwd").is_err());
    }

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(parse_content_range("bytes 0-1/*"), Some((0, None)));
        assert_eq!(parse_content_range("bytes */200"), None);
        assert_eq!(parse_content_range("lines 1-2/3"), None);
    }
}
