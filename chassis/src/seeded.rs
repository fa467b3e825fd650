//! Bugs on purpose, for the negative control of chaos runs: each takes one guard out of the real path, and the checker
//! has to find what breaks.
//!
//! They are in builds with the feature `seeded-bugs` only, which nothing else makes. There the variable
//! `SWITCHBOARD_SEEDED_BUGS` names those that are on. In any other build [`on`] is `false` at compile time, and neither
//! the guard's way around nor the variable's name is in the binary; a unit test and `e2e/tests/seeded.rs` look.

/// One guard that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The worker stores an offset before Redis has the entries.
    OffsetBeforeXadd,
    /// The gateway delivers an event again that it has delivered.
    DuplicateCheckOff,
    /// The gateway delivers an event although one before it is missing.
    GapCheckOff,
    /// The gateway does not compare heads when it has taken a new incarnation.
    HeadsNotCompared,
    /// The gateway reads the head before its interest is announced.
    ReadBeforeRegister,
    /// Core reads heads and user states without waiting for whoever is writing.
    PlainRead,
    /// The worker's XADD makes the stream of a gateway that is gone.
    XaddMakesStreams,
    /// Core commits the outbox rows after the message rows, in a transaction of their own.
    OutboxRowOnItsOwn,
    /// The gateway's retry of a SEND has a new `client_message_id`.
    FreshMessageId,
    /// Core tells nobody of a join but the conversation.
    JoinWithoutUserSeq,
}

/// Whether the bug is in this process.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub const fn on(_: Bug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use switched::{VARIABLE, check, on};

#[cfg(feature = "seeded-bugs")]
mod switched {
    use std::{env, sync::OnceLock};

    use super::Bug;

    /// Names the bugs that are on, e.g. `GapCheckOff,HeadsNotCompared`.
    pub const VARIABLE: &str = "SWITCHBOARD_SEEDED_BUGS";

    const ALL: [Bug; 10] = [
        Bug::OffsetBeforeXadd,
        Bug::DuplicateCheckOff,
        Bug::GapCheckOff,
        Bug::HeadsNotCompared,
        Bug::ReadBeforeRegister,
        Bug::PlainRead,
        Bug::XaddMakesStreams,
        Bug::OutboxRowOnItsOwn,
        Bug::FreshMessageId,
        Bug::JoinWithoutUserSeq,
    ];

    fn parse(names: &str) -> Result<Vec<Bug>, String> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let known = |name: &str| ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        names.map(|name| known(name).ok_or_else(|| format!("{VARIABLE}: {name:?} is none of {ALL:?}"))).collect()
    }

    fn active() -> &'static Result<Vec<Bug>, String> {
        static ACTIVE: OnceLock<Result<Vec<Bug>, String>> = OnceLock::new();
        ACTIVE.get_or_init(|| parse(&env::var(VARIABLE).unwrap_or_default()))
    }

    /// Whether the bug is in this process.
    pub fn on(bug: Bug) -> bool {
        active().as_ref().is_ok_and(|bugs| bugs.contains(&bug))
    }

    /// The bugs that are on, for the log.
    ///
    /// # Errors
    /// The variable names something that is none.
    pub fn check() -> Result<&'static [Bug], &'static str> {
        active().as_ref().map(Vec::as_slice).map_err(String::as_str)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn bugs_are_named_as_they_are_written() {
            let named = parse("GapCheckOff, OffsetBeforeXadd,").unwrap();
            assert_eq!(named, [Bug::GapCheckOff, Bug::OffsetBeforeXadd]);
            assert!(parse("gapcheckoff").unwrap_err().contains("none of"));
        }
    }
}

#[cfg(all(test, not(feature = "seeded-bugs")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_feature_has_no_bug() {
        const NONE: bool = on(Bug::GapCheckOff) || on(Bug::OffsetBeforeXadd);
        const { assert!(!NONE) };
    }
}
