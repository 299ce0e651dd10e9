//! What the terminal can show: how wide it is, whether it takes colour, whether it takes more than ASCII; and text
//! that comes from strangers made safe to print.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Width where nobody says one: output that goes to a file or a pipe.
const DEFAULT_COLUMNS: usize = 120;
/// Narrower than this nothing can be laid out; the terminal wraps. A tracking ID alone takes 32.
const MIN_COLUMNS: usize = 32;

/// How output is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    pub columns: usize,
    pub colour: bool,
    pub unicode: bool,
}

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Bold,
    Faint,
    Error,
    Warning,
    Good,
    /// One of a few colours, the same for the same service throughout.
    Service(usize),
}

/// Colours for services: those that are legible on black and on white, red left out because it means an error.
const SERVICE_COLOURS: [&str; 5] = ["36", "35", "34", "32", "33"];

impl Terminal {
    /// What stdout is, by its kind and the usual variables (`NO_COLOR`, `CLICOLOR_FORCE`, `COLUMNS`, `TERM`, locale).
    pub fn of_stdout() -> Terminal {
        let tty = std::io::stdout().is_terminal();
        let size = tty
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(width, _)| usize::from(width.0));
        Terminal::from_environment(tty, size, |name| std::env::var(name).ok())
    }

    fn from_environment(tty: bool, size: Option<usize>, variable: impl Fn(&str) -> Option<String>) -> Terminal {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
        let terminal = variable("TERM").unwrap_or_default();
        let columns = variable("COLUMNS")
            .and_then(|columns| columns.parse().ok())
            .or(size)
            .unwrap_or(DEFAULT_COLUMNS);
        // Only a locale that names another encoding speaks against UTF-8: containers set none at all.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(&variable)
            .find(|value| !value.is_empty());
        let utf8 = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Terminal {
            columns: columns.max(MIN_COLUMNS),
            colour: (tty && terminal != "dumb" && !set("NO_COLOR")) || set("CLICOLOR_FORCE"),
            unicode: utf8 && terminal != "dumb" && terminal != "linux",
        }
    }

    /// The text in its colour.
    pub fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Faint => "2",
            Ink::Error => "31",
            Ink::Warning => "33",
            Ink::Good => "32",
            Ink::Service(index) => SERVICE_COLOURS[index % SERVICE_COLOURS.len()],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// One sign, or what stands for it in ASCII.
    pub fn sign(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    /// The text in at most `columns` columns, with a mark where it was cut.
    pub fn fit(&self, text: &str, columns: usize) -> String {
        if text.width() <= columns {
            return text.to_owned();
        }
        let mark = self.sign("…", "..");
        let room = columns.saturating_sub(mark.width());
        let mut used = 0;
        let mut out = String::new();
        for c in text.chars() {
            let width = c.width().unwrap_or(0);
            if used + width > room {
                break;
            }
            used += width;
            out.push(c);
        }
        out.push_str(mark);
        out
    }

    /// The text in lines no wider than the terminal, broken between words; a longer word has a line of its own.
    pub fn wrap(&self, text: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split(' ') {
            match lines.last_mut() {
                Some(line) if line.width() + 1 + word.width() <= self.columns => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// The text without anything that a terminal would obey: what services send must not move the cursor, recolour
    /// the screen or reverse the reading order of a line.
    pub fn clean(&self, text: &str) -> String {
        let replace = |c: char| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() || is_directional(c) => '\u{fffd}',
            c if !c.is_ascii() && !self.unicode => '?',
            c => c,
        };
        text.trim_end()
            .chars()
            .filter(|&c| c != '\r')
            .map(|c| match replace(c) {
                '\u{fffd}' if !self.unicode => '?',
                c => c,
            })
            .collect()
    }
}

/// Characters that turn the reading direction around.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many columns a text takes that holds no colour codes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// The text, filled up with spaces on the right.
pub fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// The text, filled up with spaces on the left.
pub fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(text.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tty: bool, variables: &[(&str, &str)], expect: (usize, bool, bool)) {
        let read = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let terminal = Terminal::from_environment(tty, tty.then_some(80), read);
        assert_eq!(
            (terminal.columns, terminal.colour, terminal.unicode),
            expect,
            "{variables:?}"
        );
    }

    #[test]
    fn the_environment_decides() {
        check(true, &[], (80, true, true));
        check(false, &[], (120, false, true));
        check(true, &[("NO_COLOR", "1"), ("COLUMNS", "100")], (100, false, true));
        check(true, &[("NO_COLOR", "")], (80, true, true));
        check(false, &[("CLICOLOR_FORCE", "1"), ("COLUMNS", "3")], (32, true, true));
        check(true, &[("LANG", "C")], (80, true, false));
        check(true, &[("LANG", "C"), ("LC_ALL", "de_DE.UTF-8")], (80, true, true));
        check(true, &[("TERM", "dumb")], (80, false, false));
    }

    #[test]
    fn strangers_text_cannot_command_the_terminal() {
        let terminal = Terminal {
            columns: 80,
            colour: false,
            unicode: true,
        };
        assert_eq!(
            terminal.clean("a\x1b[31mb\r\nc\u{202e}d\u{9b}e "),
            "a\u{fffd}[31mb c\u{fffd}d\u{fffd}e"
        );
    }

    #[test]
    fn sentences_break_between_words() {
        let terminal = Terminal {
            columns: 10,
            colour: false,
            unicode: true,
        };
        assert_eq!(
            terminal.wrap("one two three overlongwords four"),
            ["one two", "three", "overlongwords", "four"]
        );
        assert_eq!(terminal.wrap("one  two"), ["one  two"]);
    }

    #[test]
    fn cutting_counts_columns_not_bytes() {
        let terminal = Terminal {
            columns: 80,
            colour: false,
            unicode: true,
        };
        assert_eq!(terminal.fit("日本語テキスト", 7), "日本語…");
        assert_eq!(terminal.fit("short", 5), "short");
    }
}
