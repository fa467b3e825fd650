use super::*;
use crate::checker::tests::{BOB, Run, resumed, slow_world, three};
use crate::history::ClientRecord;

fn verdict(run: &Run) -> Verdict {
    Verdict::of(&checker::check(&run.histories, &run.truth), &run.histories, &run.truth)
}

/// Bob misses 7-5, of two messages that were to come by a resume.
fn broken() -> Run {
    let mut run = Run::of(resumed());
    let missed = run.delivery(BOB, 5);
    run.records(BOB).remove(missed);
    run
}

/// What is told of the first finding of a kind.
fn told(run: &Run, kind: Kind) -> Told {
    let findings = verdict(run).findings;
    let found = findings.iter().find(|finding| finding.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {findings:#?}")).clone()
}

/// Of each line what it is about: record, and seq of what came.
fn seen_by(name: &str, told: &Told) -> Vec<String> {
    let file = format!("clients/{name}.ndjson");
    let of_client = told.evidence.iter().filter(|line| line.file == file);
    of_client
        .map(|line| {
            let mut words = line.text.split(' ').skip(2);
            let what = words.next().unwrap_or_default();
            let seq = words.find_map(|word| word.strip_prefix("seq=")).map(|seq| format!(" {seq}"));
            format!("{what}{}", seq.unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_finding_is_told_with_the_few_records_that_show_it() {
    let gap = told(&broken(), Kind::Gap);
    // Bob's second session, which says where it went on, and what was wrong in it.
    assert_eq!(seen_by("bob", &gap), ["connected", "subscribed", "message 6"]);
    // What came too early: who sent it, and its rows.
    assert_eq!(seen_by("alice", &gap), ["send", "acknowledged 6"]);
    let rows: Vec<&str> =
        gap.evidence.iter().filter(|line| line.file == "truth.ndjson").map(|line| &*line.text).collect();
    for expected in ["conversation ", "event ", "message ", "member "] {
        assert!(rows.iter().any(|row| row.starts_with(expected)), "no {expected}in {rows:#?}");
    }
    let here: Vec<&Line> = gap.evidence.iter().filter(|line| line.here).collect();
    assert!(here.len() == 1 && here[0].text.contains("seq=6"), "{here:?}");
}

#[test]
fn what_never_came_is_shown_by_what_came_on_either_side() {
    let mut run = Run::of(three());
    let missed = run.delivery(BOB, 4);
    run.records(BOB).remove(missed);
    let lost = told(&run, Kind::Lost);
    assert_eq!((lost.seq, seen_by("alice", &lost)), (Some(4), vec!["send".to_owned(), "acknowledged 4".to_owned()]));
    assert_eq!(seen_by("bob", &lost), ["connected", "subscribed", "resumed", "message 3"]);
}

#[test]
fn what_came_twice_is_shown_twice_also_in_two_sessions() {
    let mut run = broken();
    let (first, next) = (run.delivery(BOB, 3), run.delivery(BOB, 6));
    let mut again = run.records(BOB)[first].clone();
    if let ClientRecord::Message { session, .. } = &mut again.record {
        *session = 2;
    }
    run.records(BOB).insert(next, again);
    let seen = seen_by("bob", &told(&run, Kind::Twice));
    assert_eq!(seen.iter().filter(|what| *what == "message 3").count(), 2, "{seen:?}");
    assert_eq!(seen.iter().filter(|what| *what == "connected").count(), 2, "{seen:?}");
    assert!(!seen.iter().any(|what| what == "message 4" || what == "message 2"), "{seen:?}");
}

#[test]
fn a_line_of_evidence_is_where_it_says_it_is() {
    let run = broken();
    let gap = told(&run, Kind::Gap);
    let here = gap.evidence.iter().find(|line| line.here).unwrap();
    assert_eq!(here.file, "clients/bob.ndjson");
    // In the file, the record that says whose it is comes first.
    let ClientRecord::Message { seq, .. } = &run.histories.clients[BOB].records[here.line - 2].record else {
        panic!("line {} is no message", here.line);
    };
    assert_eq!(*seq, 6);
}

#[test]
fn many_findings_of_a_kind_are_counted_and_some_are_told() {
    let mut run = Run::of(resumed());
    let last = run.delivery(BOB, 6);
    let again = run.records(BOB)[last].clone();
    run.records(BOB).extend(std::iter::repeat_n(again, 50));
    let verdict = verdict(&run);
    assert_eq!(verdict.counts, [(Kind::Twice, 50)].into());
    assert_eq!(verdict.findings.len(), TOLD);
}

#[test]
fn the_page_is_one_file_that_loads_nothing_and_takes_text_as_text() {
    let mut run = broken();
    run.truth.push(TruthRecord::Lag { topic: "<script>alert(1)</script>".to_owned(), records: 3 });
    let page = page::page(&verdict(&run));
    assert!(page.contains("The promise was broken") && page.contains("7-6"), "{page}");
    for foreign in ["<script", "src=", "href=", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let kept = page::page(&verdict(&Run::of(slow_world())));
    assert!(kept.contains("The promise was kept") && kept.contains("it was dead"), "{kept}");
}

#[test]
fn the_terminal_shows_what_broke_first() {
    let text = verdict(&broken()).to_string();
    assert!(text.starts_with("the promise was BROKEN") && text.contains("gap: 1."), "{text}");
    let text = verdict(&Run::of(slow_world())).to_string();
    assert!(text.starts_with("the promise was kept: seed 1") && text.contains("kill 1"), "{text}");
}

#[test]
fn a_verdict_is_read_again_as_it_was_written() {
    let verdict = verdict(&broken());
    let json = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
}

#[test]
fn a_run_with_a_bug_on_purpose_says_which_and_what_was_off_and_whether_it_was_found() {
    let mut run = broken();
    let on_purpose = crate::bugs::named("OffsetBeforeXadd").unwrap()[0].on_purpose(false);
    run.histories.run.insert(1, crate::history::At { at: 0, record: RunRecord::OnPurpose(on_purpose) });
    let verdict = verdict(&run);
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["on_purpose"]["bug"], "OffsetBeforeXadd");
    assert_eq!(json["on_purpose"]["off"].as_array().unwrap().len(), 2);
    for text in [page::page(&verdict), verdict.to_string()] {
        assert!(text.contains("OffsetBeforeXadd is on") && text.contains("filling of gaps"), "{text}");
    }
    assert!(page::page(&verdict).contains("<td>Found</td><td>gap, lost</td>"), "{}", page::page(&verdict));
}
