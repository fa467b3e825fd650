//! Tables for a terminal: columns of numbers to the right, of words to the left.

/// Lays out rows under a header; every line is indented by two spaces.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<Column> = (0..header.len()).map(|at| Column::of(at, header[at], rows)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.zip(&columns).map(|(cell, column)| column.pad(cell)).collect();
        format!("  {}", cells.join("  ")).trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

struct Column {
    width: usize,
    numeric: bool,
}

impl Column {
    fn of(at: usize, header: &str, rows: &[Vec<String>]) -> Self {
        let cells = || rows.iter().filter_map(|row| row.get(at));
        let widest = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let numeric = cells().all(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        Self { width: widest.max(header.chars().count()), numeric }
    }

    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        if self.numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["send".into(), "1.5".into()], vec!["commit".into(), "12.0".into()]];
        assert_eq!(super::render(&["hop", "ms"], &rows), "  hop       ms\n  send     1.5\n  commit  12.0\n");
    }
}
