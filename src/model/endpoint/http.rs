//! One request to the server, carried by a thread of its own: whoever waits for it looks at the interrupt meanwhile and
//! may walk away at any time, which closes the connection, so that the server stops too. There is a time limit for
//! connecting and none after it: a long prompt is read in silence. Redirects are not followed: only the server that
//! was named is spoken to. Each request has its own connection; an idle one could have been closed by the other side.

use super::failure::Failure;
use super::{Address, Key};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(10);
/// How often an interrupt is looked for while nothing comes.
const TICK: Duration = Duration::from_millis(20);
/// Pieces that may lie unread.
const PIECES: usize = 64;

/// What an answer begins with.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub status: u16,
    /// `content-type`, in small letters.
    pub kind: String,
    pub retry_after: Option<Duration>,
    pub location: Option<String>,
}

pub(super) enum Came {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed(Failure),
}

/// A request under way. Dropping it ends it.
pub(super) struct Exchange {
    agent: ureq::Agent,
    came: Receiver<Came>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.agent.clone().shutdown();
    }
}

impl Exchange {
    /// GET, or POST where there is a body.
    pub fn start(address: &Address, key: Option<&Key>, url: &str, body: Option<String>) -> Self {
        let mut config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("qwright/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT));
        if address.is_this_machine() {
            config = config.proxy(None);
        }
        let agent = ureq::Agent::new_with_config(config.build());
        let (give, came) = sync_channel(PIECES);
        let work = Work {
            agent: agent.clone(),
            url: url.to_string(),
            authorization: key.map(|key| format!("Bearer {}", key.secret())),
            body,
        };
        std::thread::spawn(move || work.carry(&give));
        Self { agent, came }
    }

    /// What comes next, which after `until` is the end; `None` once `cancel` is raised.
    pub fn next(&self, cancel: &AtomicBool, until: Option<Instant>) -> Option<Came> {
        loop {
            if cancel.load(Ordering::Relaxed) {
                return None;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Some(Came::End);
            }
            match self.came.recv_timeout(TICK) {
                Ok(came) => return Some(came),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Some(Came::End),
            }
        }
    }
}

struct Work {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    body: Option<String>,
}

impl Work {
    fn carry(self, give: &SyncSender<Came>) {
        let authorization = self.authorization.as_deref();
        let answered = match self.body {
            Some(body) => {
                let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
                if let Some(value) = authorization {
                    request = request.header("Authorization", value);
                }
                request.send(body)
            }
            None => {
                let mut request = self.agent.get(&self.url);
                if let Some(value) = authorization {
                    request = request.header("Authorization", value);
                }
                request.call()
            }
        };
        let response = match answered {
            Ok(response) => response,
            Err(error) => return drop(give.send(Came::Failed(transport(&error)))),
        };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let head = Head {
            status: response.status().as_u16(),
            kind: header("content-type").unwrap_or_default().to_ascii_lowercase(),
            // A date is possible too, and no server of this kind sends one.
            retry_after: header("retry-after")
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            location: header("location").map(str::to_string),
        };
        if give.send(Came::Head(head)).is_err() {
            return;
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut bytes = vec![0; 16 << 10];
        loop {
            let came = match body.read(&mut bytes) {
                Ok(0) => Came::End,
                Ok(count) => Came::Bytes(bytes[..count].to_vec()),
                Err(error) => Came::Failed(broken_off(&error)),
            };
            let last = !matches!(came, Came::Bytes(_));
            if give.send(came).is_err() || last {
                return;
            }
        }
    }
}

fn transport(error: &ureq::Error) -> Failure {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
    match error {
        Timeout(_) => Failure::connection(format!("no connection within {} s", CONNECT.as_secs()), true),
        HostNotFound => Failure::connection(NO_SUCH_HOST, false),
        ConnectionFailed => Failure::connection("no connection", true),
        Io(error) => broken_off(error),
        other => Failure::connection(other.to_string(), false),
    }
}

const NO_SUCH_HOST: &str = "its name cannot be resolved";

fn broken_off(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof,
    };
    // The resolver's failures have no kind of their own.
    if error.to_string().starts_with("failed to lookup address") {
        return Failure::connection(NO_SUCH_HOST, false);
    }
    match error.kind() {
        ConnectionRefused => Failure::connection("connection refused", true),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            Failure::connection("the connection broke off", true)
        }
        TimedOut => Failure::connection("the connection timed out", true),
        _ => Failure::connection(error.to_string(), false),
    }
}
