//! Where peers are and where this instance listens, as text and as values.
//!
//! The channel is configured on both sides and never negotiated: it is part of the address.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Where hubs listen unless told otherwise.
pub const DEFAULT_PORT: u16 = 9850;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// TLS 1.3 with the identity key pinned.
    Tls,
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
    /// `http://` with TLS, or `https://` without.
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
    #[error("{0:?} is no channel: expected tls or plain")]
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
    const ALL: [(Self, &'static str, &'static str); 2] =
        [(Self::Tls, "tls", "https://"), (Self::Plain, "plain", "http://")];

    /// The name in configuration, lists and JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(channel, ..)| *channel == self).map_or("", |(_, name, _)| *name)
    }

    fn scheme(self) -> &'static str {
        Self::ALL.iter().find(|(channel, ..)| *channel == self).map_or("", |(.., scheme)| *scheme)
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
        let known = Self::ALL.iter().find(|(_, name, _)| *name == text);
        known.map(|(channel, ..)| *channel).ok_or_else(|| AddressFault::Channel(text.to_owned()))
    }
}

/// A hub's URL: `https://HOST[:PORT]` for TLS, `http://HOST[:PORT]` for plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubUrl {
    /// What the scheme says.
    pub channel: Channel,
    /// A name or an address, without brackets.
    pub host: String,
    /// [`DEFAULT_PORT`] unless given.
    pub port: u16,
}

impl HubUrl {
    /// Refuses a URL that does not fit the channel that was configured beside it.
    pub fn check_channel(&self, channel: Channel) -> Result<(), AddressFault> {
        if self.channel == channel {
            return Ok(());
        }
        Err(AddressFault::SchemeOfChannel { url: self.to_string(), channel, expected: channel.scheme() })
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
        write!(f, "{}{}", self.channel.scheme(), self.authority())
    }
}

impl FromStr for HubUrl {
    type Err = AddressFault;

    fn from_str(text: &str) -> Result<Self, AddressFault> {
        let scheme = |(channel, _, scheme): &(Channel, &str, &str)| {
            text.strip_prefix(scheme).map(|rest| (*channel, rest))
        };
        let (channel, rest) =
            Channel::ALL.iter().find_map(scheme).ok_or_else(|| AddressFault::Scheme(text.to_owned()))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for (mark, part) in [('/', "path"), ('?', "query"), ('#', "fragment"), ('@', "user part")] {
            if rest.contains(mark) {
                return Err(AddressFault::Surplus { url: text.to_owned(), part });
            }
        }
        let (host, port) = host_and_port(text, rest)?;
        if ServerName::try_from(host).is_err() {
            return Err(AddressFault::Host(text.to_owned()));
        }
        Ok(Self { channel, host: host.to_owned(), port })
    }
}

fn host_and_port<'a>(url: &str, text: &'a str) -> Result<(&'a str, u16), AddressFault> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| AddressFault::Host(url.to_owned()))?;
            (host, after.strip_prefix(':').or(if after.is_empty() { None } else { Some(after) }))
        }
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let Some(port) = port else { return Ok((host, DEFAULT_PORT)) };
    match port.parse() {
        Ok(number) if number > 0 => Ok((host, number)),
        _ => Err(AddressFault::Port { url: url.to_owned(), port: port.to_owned() }),
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
        text.parse::<HubUrl>().map(|url| url.to_string()).map_err(|fault| fault.to_string())
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
        let plain: HubUrl = "http://127.0.0.1".parse().unwrap();
        assert!(plain.check_channel(Channel::Plain).is_ok());
        assert!(plain.check_channel(Channel::Tls).unwrap_err().to_string().contains("use https://"));
    }

    #[test]
    fn plain_listeners_stay_on_this_machine() {
        assert_eq!("127.0.0.1:0".parse::<Listen>().unwrap().channel, Channel::Tls);
        assert!("plain://127.0.0.1:0".parse::<Listen>().is_ok());
        assert!("plain://[::1]:0".parse::<Listen>().is_ok());
        assert!("tls://0.0.0.0:9850".parse::<Listen>().is_ok());
        for (text, named) in [
            ("plain://0.0.0.0:9850", "not a loopback address"),
            ("plain://192.0.2.1:9850", "not a loopback address"),
            ("sealed://127.0.0.1:1", "no channel"),
            ("127.0.0.1", "no address"),
        ] {
            assert!(text.parse::<Listen>().unwrap_err().to_string().contains(named), "{text}");
        }
    }
}
