//! Where the server is, as the user wrote it and as it is asked; and the key it is asked with.

/// The API's address: with its `/v1`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(String);

impl Address {
    pub fn new(url: &str) -> Self {
        let url = url.trim().trim_end_matches('/');
        let url = url.strip_suffix("/chat/completions").unwrap_or(url);
        let path = url.split_once("://").map_or(url, |(_, rest)| rest);
        let version = |part: &str| {
            part.strip_prefix('v').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        };
        let versioned = path.split('/').skip(1).any(version);
        Self(if versioned { url.to_string() } else { format!("{url}/v1") })
    }

    pub fn base(&self) -> &str {
        &self.0
    }

    /// What the API's own paths stand beneath.
    pub fn root(&self) -> &str {
        self.0.strip_suffix("/v1").unwrap_or(&self.0)
    }

    /// `host[:port]`, without a name and password.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }

    /// `url`, which is one of ours, for a message.
    pub fn shown(&self, url: &str) -> String {
        match url.split_once("://") {
            Some((scheme, rest)) => {
                let path = rest.split_once('/').map_or("", |(_, path)| path);
                format!("{scheme}://{}/{path}", self.host())
            }
            None => url.to_string(),
        }
    }

    /// A proxy of the environment is not asked for what runs here.
    pub fn is_this_machine(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.starts_with("localhost:")
            || host.starts_with("127.")
            || host.starts_with("[::1]")
    }
}

/// A key, and the variable it came from. It is shown nowhere.
#[derive(Clone)]
pub struct Key {
    variable: &'static str,
    secret: String,
}

impl Key {
    pub fn new(variable: &'static str, secret: &str) -> Self {
        Self { variable, secret: secret.trim().to_string() }
    }

    pub fn variable(&self) -> &'static str {
        self.variable
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// A header can carry it.
    pub(super) fn is_sendable(&self) -> bool {
        self.secret.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_and_without_its_version() {
        for (url, base) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
            ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
            (" http://127.0.0.1:8000/v1// ", "http://127.0.0.1:8000/v1"),
            ("https://gate.example/openai", "https://gate.example/openai/v1"),
            ("https://gate.example/api/v4", "https://gate.example/api/v4"),
            ("https://v1.example", "https://v1.example/v1"),
            ("http://h/v1/chat/completions", "http://h/v1"),
        ] {
            assert_eq!(Address::new(url).base(), base, "{url}");
        }
        assert_eq!(Address::new("http://h:1").root(), "http://h:1");
    }

    #[test]
    fn neither_password_nor_key_is_shown() {
        let address = Address::new("http://user:pass@h:80/api");
        assert_eq!(address.host(), "h:80");
        assert_eq!(address.shown(address.base()), "http://h:80/api/v1");
        assert_eq!(format!("{:?}", Key::new("QWRIGHT_API_KEY", "secret")), "Key(QWRIGHT_API_KEY)");
    }
}
