//! Versions of the protocol and their choice.

/// A version of STOMP; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1_0,
    V1_1,
    V1_2,
}

impl Version {
    /// What this gateway speaks, as the `version` header of a refusal lists it.
    pub const SUPPORTED: &'static str = "1.0,1.1,1.2";
    /// The WebSocket subprotocols, the best first.
    pub const SUBPROTOCOLS: [&'static str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
            Version::V1_2 => "1.2",
        }
    }

    /// The version of one of [`Self::SUBPROTOCOLS`].
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        [Version::V1_2, Version::V1_1, Version::V1_0]
            .into_iter()
            .zip(Self::SUBPROTOCOLS)
            .find_map(|(version, protocol)| (protocol == name).then_some(version))
    }

    fn from_wire(text: &str) -> Option<Self> {
        match text.trim() {
            "1.0" => Some(Version::V1_0),
            "1.1" => Some(Version::V1_1),
            "1.2" => Some(Version::V1_2),
            _ => None,
        }
    }

    /// The highest version in `accept-version` that this gateway speaks; a client that names none speaks 1.0
    /// (STOMP 1.2, "Protocol Negotiation"). Where the WebSocket has agreed on a subprotocol that is the version, and
    /// `accept-version` has to hold it, if it is there.
    pub fn negotiate(accept_version: Option<&str>, subprotocol: Option<Self>) -> Option<Self> {
        let Some(list) = accept_version else { return Some(subprotocol.unwrap_or(Version::V1_0)) };
        let mut accepted = list.split(',').filter_map(Version::from_wire);
        match subprotocol {
            None => accepted.max(),
            Some(agreed) => accepted.find(|version| *version == agreed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let negotiate = |accept| Version::negotiate(accept, None);
        assert_eq!(negotiate(None), Some(Version::V1_0));
        assert_eq!(negotiate(Some("1.0,1.1")), Some(Version::V1_1));
        assert_eq!(negotiate(Some("1.2, 1.1,9.9")), Some(Version::V1_2));
        assert_eq!(negotiate(Some("1.0,1.1,2.0")), Some(Version::V1_1));
        assert_eq!(negotiate(Some("2.0")), None);
        assert_eq!(negotiate(Some("")), None);
    }

    #[test]
    fn a_subprotocol_is_the_version_unless_accept_version_contradicts() {
        let negotiate = |accept| Version::negotiate(accept, Some(Version::V1_1));
        assert_eq!(negotiate(None), Some(Version::V1_1));
        assert_eq!(negotiate(Some("1.0,1.1,1.2")), Some(Version::V1_1));
        assert_eq!(negotiate(Some("1.0,1.2")), None);
    }
}
