//! What a peer can do beyond version 1 of the protocol. Both sides name what they can in the handshake, where it is
//! signed; a message that belongs to a capability is sent only to a peer that named it.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Config, Resources, Write and Written.
    Config,
    /// Inquiry and Findings.
    Inquiry,
    /// Succession and its answer.
    Succession,
}

impl Capability {
    /// All of them, ascending by name, as the handshake lists them.
    pub const ALL: [Self; 3] = [Self::Config, Self::Inquiry, Self::Succession];

    /// The name in the handshake.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Inquiry => "inquiry",
            Self::Succession => "succession",
        }
    }

    /// What this program names in the handshake.
    pub fn names() -> Vec<String> {
        Self::ALL.iter().map(|capability| capability.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_in_the_order_that_the_handshake_demands() {
        assert!(Capability::names().is_sorted_by(|a, b| a < b));
    }
}
