//! A run that has shown too little proves nothing.

use std::collections::BTreeMap;

use crate::history::Floors;

use super::{
    finding::{Finding, Kind},
    shown::Shown,
};

pub fn check(floors: &Floors, shown: &Shown) -> Vec<Finding> {
    let mut asked = vec![
        ("sends acknowledged".to_owned(), floors.acknowledged, shown.acknowledged),
        ("deliveries".to_owned(), floors.deliveries, shown.deliveries),
        ("membership changes".to_owned(), floors.memberships, shown.memberships),
        ("sessions beside another of the same person".to_owned(), floors.side_by_side, shown.side_by_side),
        ("ends of faults with quiet behind them".to_owned(), floors.quiet_ends, shown.quiet_ends),
    ];
    let mut each = |what: &str, floors: &BTreeMap<String, u64>, shown: &BTreeMap<String, u64>| {
        for (name, floor) in floors {
            asked.push((format!("{what} {name}"), *floor, shown.get(name).copied().unwrap_or(0)));
        }
    };
    each("resumes by the tier", &floors.resumes, &shown.resumes);
    each("faults that took effect of the kind", &floors.faults, &shown.faults);
    asked
        .into_iter()
        .filter(|(_, floor, shown)| shown < floor)
        .map(|(what, floor, shown)| Finding::new(Kind::TooLittle, format!("{what}: {shown}, at least {floor} asked")))
        .collect()
}
