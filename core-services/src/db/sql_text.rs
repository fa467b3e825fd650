//! SQL with its values in the text, for statements that go to the server many at once.
//!
//! Only [`SqlText::sql`] takes SQL, and only what stands in the source; values are written by their type. Text is safe
//! because sessions speak utf8mb4, where no byte of a character looks like a quote or a backslash, and because every
//! session takes `NO_BACKSLASH_ESCAPES` out of its `sql_mode` before anything else (see [`super::Db`]).

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, MySqlConnection};

/// Statements, separated by semicolons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlText(pub(super) String);

impl SqlText {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// SQL of the source.
    pub fn sql(&mut self, sql: &'static str) -> &mut Self {
        self.0.push_str(sql);
        self
    }

    pub fn int(&mut self, value: i64) -> &mut Self {
        write!(self.0, "{value}").expect("a String takes all that is written to it");
        self
    }

    pub fn opt_int(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => self.sql("NULL"),
        }
    }

    /// A quoted string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.0.push('\'');
        let mut rest = value;
        while let Some(at) = rest.find(['\'', '\\', '\0']) {
            self.0.push_str(&rest[..at]);
            self.0.push_str(match rest.as_bytes()[at] {
                b'\'' => "''",
                b'\\' => "\\\\",
                _ => "\\0",
            });
            rest = &rest[at + 1..];
        }
        self.0.push_str(rest);
        self.0.push('\'');
        self
    }

    pub fn opt_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.sql("NULL"),
        }
    }

    /// A binary string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.push_str("x'");
        for byte in value {
            self.0.push(char::from(DIGITS[usize::from(byte >> 4)]));
            self.0.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        self.0.push('\'');
        self
    }

    /// A `DATETIME(6)`.
    pub fn time(&mut self, value: DateTime<Utc>) -> &mut Self {
        write!(self.0, "'{}'", value.format("%Y-%m-%d %H:%M:%S%.6f"))
            .expect("a String takes all that is written to it");
        self
    }

    /// Items with commas between them.
    pub fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) -> &mut Self {
        let mut first = true;
        for one in items {
            if !std::mem::take(&mut first) {
                self.0.push(',');
            }
            item(self, one);
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs it in somebody's transaction.
    pub async fn execute(self, tx: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.0)).execute(tx).await.map(drop)
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_by_their_type() {
        let mut sql = SqlText::default();
        let at = DateTime::from_timestamp_micros(1_700_000_000_000_007).unwrap();
        sql.sql("(");
        sql.list([1, -2], |sql, n| {
            sql.int(n);
        });
        sql.sql(") ").opt_int(None).sql(" ");
        sql.bytes(&[0, 255]).sql(" ").time(at).sql(" ").opt_text(None);
        assert_eq!(sql.into_string(), "(1,-2) NULL x'00ff' '2023-11-14 22:13:20.000007' NULL");
    }

    #[test]
    fn no_text_ends_its_own_quotes() {
        let mut sql = SqlText::default();
        sql.text("a'b\\'c\0ü\\");
        assert_eq!(sql.into_string(), "'a''b\\\\''c\\0ü\\\\'");
    }
}
