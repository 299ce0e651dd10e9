//! What a span says about an SQL text: its first word, its first table, and the text without literal values.

/// The parts of a statement that name a span.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    /// `SELECT`, `INSERT`, …
    pub operation: Option<String>,
    /// The first table that it reads or writes.
    pub collection: Option<String>,
}

/// Words looked at before giving up on finding a table.
const MAX_WORDS: usize = 200;

pub(super) fn describe(sql: &str) -> Statement {
    let mut words = Words { rest: sql }.take(MAX_WORDS);
    let Some(first) = words.next() else {
        return Statement {
            operation: None,
            collection: None,
        };
    };
    let operation = first.to_ascii_uppercase();
    let is = |word: &str, key: &str| word.eq_ignore_ascii_case(key);
    let mut collection = None;
    let mut expect_table = operation == "UPDATE";
    for word in words {
        if expect_table {
            let noise = [
                "IF", "NOT", "EXISTS", "ONLY", "OR", "REPLACE", "IGNORE", "ABORT", "FAIL", "ROLLBACK",
            ];
            if noise.iter().any(|key| is(word, key)) {
                continue;
            }
            // `FROM (SELECT …`: the table comes after the inner FROM.
            if word == "(" {
                expect_table = false;
                continue;
            }
            collection = Some(word.replace(['"', '`', '[', ']'], ""));
            break;
        }
        expect_table =
            ["FROM", "INTO", "TABLE"].iter().any(|key| is(word, key)) || (operation == "WITH" && is(word, "UPDATE"));
    }
    Statement {
        operation: Some(operation),
        collection,
    }
}

/// Words and parentheses of an SQL text, without comments and string literals.
struct Words<'s> {
    rest: &'s str,
}

impl<'s> Iterator for Words<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ')' | '='));
            let rest = self.rest;
            let first = rest.chars().next()?;
            if let Some(comment) = rest.strip_prefix("--") {
                self.rest = comment.split_once('\n').map_or("", |(_, after)| after);
                continue;
            }
            if let Some(comment) = rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, after)| after);
                continue;
            }
            if first == '\'' {
                self.rest = &rest[literal_length(rest)..];
                continue;
            }
            if first == '(' {
                self.rest = &rest[1..];
                return Some("(");
            }
            let end = rest
                .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';' | '\'' | '='))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            self.rest = after;
            return Some(word);
        }
    }
}

/// Bytes of the string literal that `text` begins with; two quotes inside are one quote.
fn literal_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == b'\'' {
            if bytes.get(at + 1) == Some(&b'\'') {
                at += 2;
                continue;
            }
            return at + 1;
        }
        at += 1;
    }
    bytes.len()
}

/// The text with string and number literals replaced by `?`: someone may have written a value into the text. Placeholders
/// and digits inside names stay.
pub(super) fn without_literals(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            out.push('?');
            rest = &rest[literal_length(rest)..];
            previous = '?';
            continue;
        }
        let in_name = previous.is_alphanumeric() || matches!(previous, '_' | '$' | '?' | ':' | '@' | '"');
        if first.is_ascii_digit() && !in_name {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(rest.len());
            out.push('?');
            rest = &rest[end..];
            previous = '?';
            continue;
        }
        out.push(first);
        previous = first;
        rest = &rest[first.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_tables() {
        for (sql, operation, collection) in [
            ("SELECT * FROM sessions WHERE id = $1", "SELECT", Some("sessions")),
            (
                "select count(*) from workflow_executions;",
                "SELECT",
                Some("workflow_executions"),
            ),
            (
                "INSERT INTO sessions(id, user_id) VALUES ($1, $2)",
                "INSERT",
                Some("sessions"),
            ),
            ("INSERT OR REPLACE INTO s VALUES ($1)", "INSERT", Some("s")),
            ("UPDATE \"sessions\" SET status = $1", "UPDATE", Some("sessions")),
            ("DELETE FROM public.sessions", "DELETE", Some("public.sessions")),
            (
                "CREATE TABLE IF NOT EXISTS sessions (id TEXT)",
                "CREATE",
                Some("sessions"),
            ),
            (
                "SELECT x FROM (SELECT 1 AS x FROM inner_one)",
                "SELECT",
                Some("inner_one"),
            ),
            (
                "-- why FROM here\n/* FROM there */ SELECT 'FROM nowhere' FROM t",
                "SELECT",
                Some("t"),
            ),
            ("SELECT 1", "SELECT", None),
            ("BEGIN", "BEGIN", None),
            ("PRAGMA user_version", "PRAGMA", None),
        ] {
            let expect = Statement {
                operation: Some(operation.to_owned()),
                collection: collection.map(str::to_owned),
            };
            assert_eq!(describe(sql), expect, "{sql}");
        }
        assert_eq!(describe("  -- nothing").operation, None);
        assert_eq!(describe("").operation, None);
    }

    #[test]
    fn literals_do_not_leave() {
        for (sql, expect) in [
            (
                "SELECT * FROM t WHERE a = $1 AND b = ?2",
                "SELECT * FROM t WHERE a = $1 AND b = ?2",
            ),
            ("WHERE name = 'O''Brien' AND n = 42", "WHERE name = ? AND n = ?"),
            ("WHERE t1.c2 = 3.5e10 LIMIT 10", "WHERE t1.c2 = ? LIMIT ?"),
            ("VALUES ('unclosed", "VALUES (?"),
            ("SELECT 'é' AS é", "SELECT ? AS é"),
            ("IN (1,2, 0xff)", "IN (?,?, ?)"),
        ] {
            assert_eq!(without_literals(sql), expect, "{sql}");
        }
    }
}
