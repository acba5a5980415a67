//! Where a broker listens.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where a broker listens: a TLS port, or a Unix socket on the same host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// `https://HOST:PORT`; the host is a DNS name or an IP address, without brackets.
    Https {
        /// DNS name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// `unix:///PATH`; the peer is known by its user id, there is no TLS.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidAddress {
    /// Neither `https://` nor `unix://`.
    #[error("does not start with `https://` or `unix:///`")]
    Scheme,
    /// Not a URL with a host.
    #[error("names no host")]
    Host,
    /// Something after the port.
    #[error("has a path or query after the port")]
    Path,
    /// A Unix socket path that is not absolute.
    #[error("needs an absolute socket path, as in `unix:///run/mayfly.sock`")]
    Socket,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') && path.len() > 1 {
                Ok(Self::Unix(path.into()))
            } else {
                Err(InvalidAddress::Socket)
            };
        }
        if !text.starts_with("https://") {
            return Err(InvalidAddress::Scheme);
        }
        let uri: http::Uri = text.parse().map_err(|_| InvalidAddress::Host)?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err(InvalidAddress::Path);
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || text.contains('@') {
            return Err(InvalidAddress::Host);
        }
        Ok(Self::Https { host: host.to_owned(), port: uri.port_u16().unwrap_or(HTTPS_PORT) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["https://127.0.0.1:7443", "https://broker.example:443", "https://[::1]:7443", "unix:///run/m.sock"]
        {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("https://broker".parse(), Ok(Address::Https { host: "broker".into(), port: 443 }));
    }

    #[test]
    fn an_address_without_tls_or_with_more_than_a_host_is_refused() {
        let check = |text: &str, want| assert_eq!(text.parse::<Address>(), Err(want), "{text}");
        check("http://127.0.0.1:7443", InvalidAddress::Scheme);
        check("127.0.0.1:7443", InvalidAddress::Scheme);
        check("https://", InvalidAddress::Host);
        check("https://user@host:1", InvalidAddress::Host);
        check("https://host:1/path", InvalidAddress::Path);
        check("https://host:1/?q", InvalidAddress::Path);
        check("unix://run/m.sock", InvalidAddress::Socket);
        check("unix:///", InvalidAddress::Socket);
    }
}
