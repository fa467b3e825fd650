//! The page for people: one file, nothing loaded from elsewhere, no script.

use std::fmt::Write as _;

use crate::checker::Kind;

use super::{Fault, Told, Verdict};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; }
.kept { color: #14692b; } .broken { color: #b3261e; }
.quiet { color: #5b6470; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e3e6ea; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.under { color: #b3261e; font-weight: 600; }
.way { position: relative; min-width: 18rem; height: 1rem; background: #f2f4f6; }
.bar { position: absolute; top: 0; bottom: 0; min-width: 2px; background: #c7522a; }
.bar.none { background: #b9c0c8; }
details { margin: .5rem 0; border-left: 3px solid #e3e6ea; padding-left: .8rem; }
summary { cursor: pointer; }
pre { font: 12.5px/1.5 ui-monospace, monospace; overflow-x: auto; background: #f7f8fa; padding: .6rem; margin: .4rem 0; }
pre .here { background: #ffe9c7; }
";

/// The whole page.
pub fn page(verdict: &Verdict) -> String {
    let (class, word) = if verdict.passed { ("kept", "kept") } else { ("broken", "broken") };
    let mut html = String::new();
    let out = &mut html;
    push(out, "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    push(out, &format!("<title>The promise was {word}: seed {}</title>", verdict.seed));
    push(out, &format!("<style>{STYLE}</style></head><body>"));
    push(out, &format!("<h1 class=\"{class}\">The promise was {word}</h1>"));
    push(
        out,
        &format!(
            "<p class=\"quiet\">Seed {}, {:.0} s, begun {}. Again: <code>{}</code></p>",
            verdict.seed,
            verdict.seconds,
            escaped(&verdict.started),
            escaped(&verdict.command)
        ),
    );
    on_purpose(out, verdict);
    findings(out, verdict);
    shown(out, verdict);
    faults(out, verdict);
    promises(out, verdict);
    push(out, "</body></html>");
    html
}

/// What was wrong with the stack, and whether that was found.
fn on_purpose(out: &mut String, verdict: &Verdict) {
    let Some(on_purpose) = &verdict.on_purpose else { return };
    let names: Vec<&str> = on_purpose.breaks.iter().map(|kind| kind.name()).collect();
    let found: Vec<&str> =
        on_purpose.breaks.iter().filter(|kind| verdict.counts.contains_key(kind)).map(|kind| kind.name()).collect();
    let asked = if on_purpose.left_out { "Must not be found" } else { "Has to be found, one of these at least" };
    let found = if found.is_empty() { "nothing of it".to_owned() } else { found.join(", ") };
    push(out, "<h2>On purpose</h2><table>");
    let rows = [
        ("The bug", on_purpose.to_string()),
        ("Off, because it would repair it", on_purpose.off.join("; ")),
        (asked, names.join(", ")),
        ("Found", found),
    ];
    for (what, text) in rows {
        push(out, &format!("<tr><td>{what}</td><td>{}</td></tr>", escaped(&text)));
    }
    push(out, "</table>");
}

fn findings(out: &mut String, verdict: &Verdict) {
    for (kind, count) in &verdict.counts {
        push(out, &format!("<h2>{}: {count}</h2><p>Broken: <em>{}</em></p>", kind.name(), kind.promise()));
        let of_kind: Vec<&Told> = verdict.findings.iter().filter(|finding| finding.kind == *kind).collect();
        for (number, finding) in of_kind.iter().enumerate() {
            let open = if number == 0 { " open" } else { "" };
            push(out, &format!("<details{open}><summary>{}</summary><pre>", escaped(&finding.text)));
            for line in &finding.evidence {
                let text = escaped(&format!("{}:{} {}", line.file, line.line, line.text));
                push(out, &if line.here { format!("<span class=\"here\">{text}</span>\n") } else { text + "\n" });
            }
            push(out, "</pre></details>");
        }
        if of_kind.len() < *count {
            push(out, &format!("<p class=\"quiet\">and {} more</p>", count - of_kind.len()));
        }
    }
}

fn shown(out: &mut String, verdict: &Verdict) {
    let (shown, floors) = (&verdict.shown, &verdict.floors);
    push(out, "<h2>What the run has shown</h2><table><tr><th></th><th></th><th>asked</th></tr>");
    let mut row = |what: &str, count: u64, floor: Option<u64>| {
        let class = if floor.is_some_and(|floor| count < floor) { "number under" } else { "number" };
        let floor = floor.filter(|floor| *floor > 0).map_or(String::new(), |floor| format!("at least {floor}"));
        let what = escaped(what);
        push(out, &format!("<tr><td>{what}</td><td class=\"{class}\">{count}</td><td>{floor}</td></tr>"));
    };
    row("people", shown.people, None);
    row("clients", shown.clients, None);
    row("sessions", shown.sessions, None);
    row("of these beside another of the same person", shown.side_by_side, Some(floors.side_by_side));
    row("conversations", shown.conversations, None);
    row("messages acknowledged", shown.acknowledged, Some(floors.acknowledged));
    row("messages sent again", shown.sent_again, None);
    row("deliveries", shown.deliveries, Some(floors.deliveries));
    row("membership changes", shown.memberships, Some(floors.memberships));
    row("ends of faults with quiet behind them", shown.quiet_ends, Some(floors.quiet_ends));
    let mut each = |what: &str, counts: &std::collections::BTreeMap<String, u64>, floors: Option<&_>| {
        let floors: &std::collections::BTreeMap<String, u64> = match floors {
            Some(floors) => floors,
            None => &Default::default(),
        };
        let mut names: Vec<&String> = counts.keys().chain(floors.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let count = counts.get(name).copied().unwrap_or(0);
            row(&format!("{what} {name}"), count, floors.get(name).copied());
        }
    };
    each("resumes, tier", &shown.resumes, Some(&floors.resumes));
    each("faults that took effect:", &shown.faults, Some(&floors.faults));
    each("faults without effect:", &shown.faults_without_effect, None);
    push(out, "</table>");
}

fn faults(out: &mut String, verdict: &Verdict) {
    push(out, "<h2>Faults</h2><table><tr><th>s</th><th>kind</th><th>of</th><th></th><th></th></tr>");
    let whole = verdict.seconds.max(0.001);
    for Fault { kind, target, begun, ended, took_effect, detail } in &verdict.faults {
        let until = ended.unwrap_or(whole);
        let (left, width) = (100.0 * begun / whole, 100.0 * (until - begun).max(0.0) / whole);
        let class = if *took_effect { "bar" } else { "bar none" };
        let note = if *took_effect { "" } else { "no effect: " };
        push(
            out,
            &format!(
                "<tr><td>{begun:.1}–{until:.1}</td><td>{}</td><td>{}</td><td class=\"way\"><span class=\"{class}\" \
                 style=\"left:{left:.2}%;width:{width:.2}%\"></span></td><td>{note}{}</td></tr>",
                escaped(kind),
                escaped(target),
                escaped(detail)
            ),
        );
    }
    push(out, "</table>");
}

fn promises(out: &mut String, verdict: &Verdict) {
    push(out, "<h2>What was looked at</h2><table>");
    for kind in Kind::ALL {
        let count = verdict.counts.get(&kind).copied().unwrap_or(0);
        let (class, word) =
            if count == 0 { ("kept", "kept".to_owned()) } else { ("broken", format!("broken, {count}")) };
        let (name, promise) = (kind.name(), kind.promise());
        push(out, &format!("<tr><td>{name}</td><td>{promise}</td><td class=\"{class}\">{word}</td></tr>"));
    }
    push(out, "</table>");
}

fn push(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a text takes whatever is written to it");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
