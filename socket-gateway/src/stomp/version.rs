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

    /// The highest version in `accept-version` that this gateway speaks (STOMP 1.2, "Protocol Negotiation"). A client that
    /// names none speaks that of the WebSocket's subprotocol, and 1.0 where there is none. A subprotocol that
    /// `accept-version` does not hold is passed over: there are libraries that always offer all of them.
    pub fn negotiate(accept_version: Option<&str>, subprotocol: Option<Self>) -> Option<Self> {
        match accept_version {
            None => Some(subprotocol.unwrap_or(Version::V1_0)),
            Some(list) => list.split(',').filter_map(Version::from_wire).max(),
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
    fn a_subprotocol_is_the_version_where_accept_version_names_none() {
        let negotiate = |accept| Version::negotiate(accept, Some(Version::V1_1));
        assert_eq!(negotiate(None), Some(Version::V1_1));
        assert_eq!(negotiate(Some("1.0,1.1,1.2")), Some(Version::V1_2));
        assert_eq!(negotiate(Some("1.0")), Some(Version::V1_0));
        assert_eq!(negotiate(Some("2.0")), None);
    }
}
