//! The one rule of who may see what, for history, resume, attach and live.
//!
//! In a channel a member sees every seq, a former member those up to the last one of their last membership. In a dm
//! or group everyone sees the intervals of their memberships.

use super::Kind;

/// One membership: first and last seq, ends included; still open without a last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub joined_seq: i64,
    pub left_seq: Option<i64>,
}

/// A range of seqs, ends included; `to` is `None` while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: i64,
    pub to: Option<i64>,
}

/// What somebody with these memberships (ascending) may see: ascending ranges; none for who never was a member.
pub fn visible(kind: Kind, memberships: &[Interval]) -> Vec<Range> {
    match kind {
        Kind::Dm | Kind::Group => {
            memberships.iter().map(|interval| Range { from: interval.joined_seq, to: interval.left_seq }).collect()
        }
        // The last membership is the open one, if any is.
        Kind::Channel => memberships.last().map(|last| Range { from: 1, to: last.left_seq }).into_iter().collect(),
    }
}

/// Whether a seq is in one of the ranges.
pub fn may_see(ranges: &[Range], seq: i64) -> bool {
    ranges.iter().any(|range| range.from <= seq && range.to.is_none_or(|to| seq <= to))
}

/// Whether the person is a member now.
pub fn is_member(memberships: &[Interval]) -> bool {
    memberships.last().is_some_and(|last| last.left_seq.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: &[Interval] =
        &[Interval { joined_seq: 3, left_seq: Some(5) }, Interval { joined_seq: 9, left_seq: Some(12) }];

    fn seen(kind: Kind, memberships: &[Interval]) -> Vec<i64> {
        let ranges = visible(kind, memberships);
        (1..=15).filter(|seq| may_see(&ranges, *seq)).collect()
    }

    #[test]
    fn a_former_member_of_a_channel_sees_all_up_to_their_last_seq() {
        assert_eq!(seen(Kind::Channel, TWICE), (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn a_member_of_a_channel_sees_all() {
        let back = [TWICE[0], Interval { joined_seq: 9, left_seq: None }];
        assert_eq!(seen(Kind::Channel, &back), (1..=15).collect::<Vec<_>>());
        assert!(is_member(&back) && !is_member(TWICE));
    }

    #[test]
    fn in_a_group_everyone_sees_their_own_intervals() {
        assert_eq!(seen(Kind::Group, TWICE), [3, 4, 5, 9, 10, 11, 12]);
        assert_eq!(seen(Kind::Dm, &[]), Vec::<i64>::new());
    }
}
