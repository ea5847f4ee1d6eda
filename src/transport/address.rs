//! Where peers are and where this instance listens, as text and as values.
//!
//! The channel is configured on both sides and never negotiated: it is part of the address.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Where hubs listen unless told otherwise.
pub const DEFAULT_PORT: u16 = 9850;
/// Where proxies that end TLS listen.
const HTTPS_PORT: u16 = 443;
/// Where other proxies do.
const HTTP_PORT: u16 = 80;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// TLS 1.3 with the identity key pinned.
    Tls,
    /// Sealed inside the stream, through proxies that end TLS.
    Sealed,
    /// Not at all: for debugging, on loopback only.
    Plain,
}

/// A text that is no address. The user's mistake; the text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// Neither `https://` nor `http://`.
    #[error("{0:?} is no URL of a hub: expected https://HOST[:PORT]")]
    Scheme(String),
    /// More than a host and a port.
    #[error("{url:?} has a {part}: a hub's URL is https://HOST[:PORT] and nothing else")]
    Surplus {
        /// The whole text.
        url: String,
        /// What there is too much of.
        part: &'static str,
    },
    /// No host, or none that could be one.
    #[error("{0:?} names no host: expected https://HOST[:PORT]")]
    Host(String),
    /// No port number.
    #[error("{url:?}: {port:?} is no port: expected a number from 1 to 65535")]
    Port {
        /// The whole text.
        url: String,
        /// What stands in its place.
        port: String,
    },
    /// `http://` with TLS, or `https://` with plain.
    #[error("{url:?} does not fit the channel {channel}: use {expected}")]
    SchemeOfChannel {
        /// The whole text.
        url: String,
        /// The configured channel.
        channel: Channel,
        /// The scheme that fits.
        expected: &'static str,
    },
    /// Not a channel of this version.
    #[error("{0:?} is no channel: expected tls, sealed or plain")]
    Channel(String),
    /// Not an address to listen on.
    #[error("{0:?} is no address to listen on: expected [CHANNEL://]IP:PORT")]
    Listen(String),
    /// A plain listener that others could reach.
    #[error(
        "{0} is not a loopback address: plain listeners are for debugging on this machine; use tls://{0}"
    )]
    NotLoopback(SocketAddr),
}

impl Channel {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Tls, "tls"), (Self::Sealed, "sealed"), (Self::Plain, "plain")];

    /// The name in configuration, lists and JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(channel, _)| *channel == self).map_or("", |(_, name)| *name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Channel {
    type Err = AddressFault;

    fn from_str(text: &str) -> Result<Self, AddressFault> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(channel, _)| *channel).ok_or_else(|| AddressFault::Channel(text.to_owned()))
    }
}

/// What carries the streams of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// TLS, the hub's own or a proxy's.
    Https,
    /// HTTP/2 without TLS.
    Http,
}

impl Scheme {
    const ALL: [(Self, &'static str); 2] = [(Self::Https, "https://"), (Self::Http, "http://")];

    fn prefix(self) -> &'static str {
        Self::ALL.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, prefix)| *prefix)
    }

    /// The channel of a URL that has none beside it.
    const fn channel(self) -> Channel {
        match self {
            Self::Https => Channel::Tls,
            Self::Http => Channel::Plain,
        }
    }

    /// Where the other side listens unless the URL says it: a hub at its own port, a proxy at that of the scheme.
    const fn port(self, channel: Channel) -> u16 {
        match (channel, self) {
            (Channel::Tls | Channel::Plain, _) => DEFAULT_PORT,
            (Channel::Sealed, Self::Https) => HTTPS_PORT,
            (Channel::Sealed, Self::Http) => HTTP_PORT,
        }
    }
}

/// A hub's URL and how it is spoken to: `https://HOST[:PORT]` with TLS, `http://HOST[:PORT]` with plain, either with
/// sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubUrl {
    /// How the session is protected.
    pub channel: Channel,
    /// What carries it there.
    pub scheme: Scheme,
    /// A name or an address, without brackets.
    pub host: String,
    /// The one of channel and scheme unless given.
    pub port: u16,
}

impl HubUrl {
    /// Reads a URL beside which this channel is configured; without one the scheme says it.
    pub fn parse(text: &str, channel: Option<Channel>) -> Result<Self, AddressFault> {
        let scheme = |(scheme, prefix): &(Scheme, &str)| Some((*scheme, text.strip_prefix(prefix)?));
        let (scheme, rest) =
            Scheme::ALL.iter().find_map(scheme).ok_or_else(|| AddressFault::Scheme(shown(text)))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for (mark, part) in [('/', "path"), ('?', "query"), ('#', "fragment"), ('@', "user part")] {
            if rest.contains(mark) {
                return Err(AddressFault::Surplus { url: shown(text), part });
            }
        }
        let (host, port) = host_and_port(text, rest)?;
        if ServerName::try_from(host).is_err() {
            return Err(AddressFault::Host(shown(text)));
        }
        let channel = channel.unwrap_or(scheme.channel());
        let port = port.unwrap_or(scheme.port(channel));
        let url = Self { channel, scheme, host: host.to_owned(), port };
        match (channel, scheme) {
            (Channel::Sealed, _) | (Channel::Tls, Scheme::Https) | (Channel::Plain, Scheme::Http) => Ok(url),
            (Channel::Tls, Scheme::Http) => Err(url.misfit(Scheme::Https)),
            (Channel::Plain, Scheme::Https) => Err(url.misfit(Scheme::Http)),
        }
    }

    fn misfit(&self, expected: Scheme) -> AddressFault {
        let (url, channel) = (self.to_string(), self.channel);
        AddressFault::SchemeOfChannel { url, channel, expected: expected.prefix() }
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scheme.prefix(), self.authority())
    }
}

/// A URL as errors and logs may show it: what stands before an `@` may be a password.
fn shown(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    match text.rfind('@').filter(|at| *at >= begin) {
        Some(at) => {
            format!("{}***{}", text.get(..begin).unwrap_or_default(), text.get(at..).unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

fn host_and_port<'a>(url: &str, text: &'a str) -> Result<(&'a str, Option<u16>), AddressFault> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| AddressFault::Host(shown(url)))?;
            (host, after.strip_prefix(':').or(if after.is_empty() { None } else { Some(after) }))
        }
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let Some(port) = port else { return Ok((host, None)) };
    match port.parse() {
        Ok(number) if number > 0 => Ok((host, Some(number))),
        _ => Err(AddressFault::Port { url: shown(url), port: port.to_owned() }),
    }
}

/// An address to listen on: `[CHANNEL://]IP:PORT`, TLS unless it says otherwise. Port 0 takes a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// How connections are protected.
    pub channel: Channel,
    /// Where.
    pub address: SocketAddr,
}

impl FromStr for Listen {
    type Err = AddressFault;

    fn from_str(text: &str) -> Result<Self, AddressFault> {
        let (channel, address) = match text.split_once("://") {
            Some((channel, address)) => (channel.parse()?, address),
            None => (Channel::Tls, text),
        };
        let address: SocketAddr = address.parse().map_err(|_| AddressFault::Listen(text.to_owned()))?;
        if channel == Channel::Plain && !address.ip().to_canonical().is_loopback() {
            return Err(AddressFault::NotLoopback(address));
        }
        Ok(Self { channel, address })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.channel, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, String> {
        on(text, None)
    }

    fn on(text: &str, channel: Option<Channel>) -> Result<String, String> {
        HubUrl::parse(text, channel).map(|url| url.to_string()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_hubs_url_is_a_host_and_maybe_a_port() {
        assert_eq!(url("https://hub.example").unwrap(), "https://hub.example:9850");
        assert_eq!(url("https://hub.example/").unwrap(), "https://hub.example:9850");
        assert_eq!(url("https://10.0.0.7:1234").unwrap(), "https://10.0.0.7:1234");
        assert_eq!(url("https://[::1]").unwrap(), "https://[::1]:9850");
        assert_eq!(url("http://127.0.0.1:80").unwrap(), "http://127.0.0.1:80");
    }

    #[test]
    fn whatever_else_a_url_has_is_named_and_refused() {
        for (text, named) in [
            ("https://hub/sync", "path"),
            ("https://hub?x=1", "query"),
            ("https://hub#x", "fragment"),
            ("https://me@hub", "user part"),
            ("https://hub:0", "\"0\" is no port"),
            ("https://hub:99999", "\"99999\" is no port"),
            ("https://[::1", "no host"),
            ("https://[::1]x", "\"x\" is no port"),
            ("https://", "no host"),
            ("https://a b", "no host"),
            ("hub.example:9850", "expected https://"),
            ("ftp://hub", "expected https://"),
        ] {
            let fault = url(text).unwrap_err();
            assert!(fault.contains(named), "{text}: {fault}");
        }
    }

    #[test]
    fn a_url_must_fit_the_channel_that_is_configured() {
        assert!(on("http://127.0.0.1", Some(Channel::Plain)).is_ok());
        assert!(on("http://127.0.0.1", Some(Channel::Tls)).unwrap_err().contains("use https://"));
        assert!(on("https://127.0.0.1", Some(Channel::Plain)).unwrap_err().contains("use http://"));
        assert_eq!(HubUrl::parse("https://hub", None).unwrap().channel, Channel::Tls);
        assert_eq!(HubUrl::parse("http://hub", None).unwrap().channel, Channel::Plain);
    }

    #[test]
    fn a_sealed_channel_goes_to_where_proxies_listen() {
        let sealed = |text| on(text, Some(Channel::Sealed)).unwrap();
        assert_eq!(sealed("https://hub.example"), "https://hub.example:443");
        assert_eq!(sealed("http://hub.example"), "http://hub.example:80");
        assert_eq!(sealed("https://hub.example:8443"), "https://hub.example:8443");
    }

    #[test]
    fn plain_listeners_stay_on_this_machine() {
        assert_eq!("127.0.0.1:0".parse::<Listen>().unwrap().channel, Channel::Tls);
        assert!("plain://127.0.0.1:0".parse::<Listen>().is_ok());
        assert!("plain://[::1]:0".parse::<Listen>().is_ok());
        assert!("tls://0.0.0.0:9850".parse::<Listen>().is_ok());
        assert!("sealed://0.0.0.0:9850".parse::<Listen>().is_ok());
        for (text, named) in [
            ("plain://0.0.0.0:9850", "not a loopback address"),
            ("plain://192.0.2.1:9850", "not a loopback address"),
            ("open://127.0.0.1:1", "no channel"),
            ("127.0.0.1", "no address"),
        ] {
            assert!(text.parse::<Listen>().unwrap_err().to_string().contains(named), "{text}");
        }
    }
}
