//! Which files a pattern names: `*`, `?`, `[…]` within a name, `**` over folders, `{a,b}`. Patterns are walked folder by folder, so that only folders that
//! can hold a match are listed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use regex::bytes::Regex;

/// Paths that one receiver's patterns may name. Each is looked at in every poll, and takes a few hundred bytes.
pub const MAX_MATCHES: usize = 100_000;
/// Names that one scan looks at before it stops: a pattern that walks a whole disk is a mistake.
const MAX_VISITED: usize = 1_000_000;
/// Folders below each other that `**` goes through.
const MAX_DEPTH: usize = 64;
/// Patterns that the braces of one may stand for.
const MAX_ALTERNATIVES: usize = 256;

/// One pattern without braces.
#[derive(Debug, Clone)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// `/` at the beginning.
    Root,
    Name(OsString),
    Names(Regex),
    /// Any number of folders, none included.
    Folders,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Found {
    pub paths: BTreeSet<PathBuf>,
    /// A bound was reached; there is more.
    pub is_cut: bool,
    visited: usize,
}

impl Glob {
    /// Reads a pattern; one with braces is several.
    pub fn parse(text: &str) -> Result<Vec<Glob>, String> {
        if text.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let mut texts = Vec::new();
        alternatives(text, &mut texts)?;
        texts.iter().map(|text| Glob::of(text)).collect()
    }

    fn of(text: &str) -> Result<Glob, String> {
        let mut parts = Vec::new();
        if text.starts_with('/') {
            parts.push(Part::Root);
        }
        for name in text.split('/').filter(|name| !name.is_empty() && *name != ".") {
            parts.push(match name {
                "**" => Part::Folders,
                name if name.contains(['*', '?', '[', '\\']) => Part::Names(names(name)?),
                name => Part::Name(name.into()),
            });
        }
        if parts.len() > MAX_DEPTH {
            return Err(format!("`{text}` goes through more than {MAX_DEPTH} folders"));
        }
        Ok(Glob { parts })
    }

    pub fn matches(&self, path: &Path) -> bool {
        let names: Vec<Option<&OsStr>> = path
            .components()
            .filter_map(|component| match component {
                Component::RootDir => Some(None),
                Component::CurDir => None,
                other => Some(Some(other.as_os_str())),
            })
            .collect();
        matches(&self.parts, &names)
    }

    pub fn walk(&self, found: &mut Found) {
        walk(PathBuf::new(), &self.parts, 0, found);
    }
}

fn matches(parts: &[Part], names: &[Option<&OsStr>]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Part::Folders, rest)), _) => {
            // `**` at the end stands for names too.
            rest.is_empty() || (0..=names.len()).any(|skipped| matches(rest, &names[skipped..]))
        }
        (Some((part, parts)), Some((name, names))) => {
            let is_it = match (part, name) {
                (Part::Root, None) => true,
                (Part::Name(wanted), Some(name)) => wanted == name,
                (Part::Names(wanted), Some(name)) => wanted.is_match(name.as_bytes()),
                _ => false,
            };
            is_it && matches(parts, names)
        }
        _ => false,
    }
}

fn walk(at: PathBuf, parts: &[Part], depth: usize, found: &mut Found) {
    let Some((part, rest)) = parts.split_first() else {
        match found.paths.len() < MAX_MATCHES {
            true => drop(found.paths.insert(at)),
            false => found.is_cut = true,
        }
        return;
    };
    match part {
        Part::Root => walk(PathBuf::from("/"), rest, depth, found),
        Part::Name(name) => {
            let path = at.join(name);
            if !rest.is_empty() || path.symlink_metadata().is_ok() {
                walk(path, rest, depth, found);
            }
        }
        Part::Names(wanted) => {
            for (name, _) in list(&at, found) {
                if wanted.is_match(name.as_bytes()) {
                    walk(at.join(name), rest, depth, found);
                }
            }
        }
        Part::Folders => {
            let is_last = rest.is_empty();
            if !is_last {
                walk(at.clone(), rest, depth, found);
            }
            for (name, is_folder) in list(&at, found) {
                let path = at.join(name);
                // A link to a folder is not followed here: it may lead back up.
                match is_folder {
                    true if depth < MAX_DEPTH => walk(path, parts, depth + 1, found),
                    false if is_last => walk(path, rest, depth, found),
                    _ => {}
                }
            }
        }
    }
}

/// The names in a folder, and which are folders. One that cannot be listed has none: a name that is no folder is asked for its content all the time.
fn list(folder: &Path, found: &mut Found) -> Vec<(OsString, bool)> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let left = MAX_VISITED.saturating_sub(found.visited);
    let names: Vec<_> = entries
        .flatten()
        .take(left)
        .map(|entry| (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir())))
        .collect();
    found.visited += names.len();
    found.is_cut |= names.len() == left;
    names
}

/// Writes out the first braces of a pattern, and so on.
fn alternatives(text: &str, out: &mut Vec<String>) -> Result<(), String> {
    let Some(open) = text.find('{') else {
        if out.len() == MAX_ALTERNATIVES {
            return Err(format!("the braces stand for more than {MAX_ALTERNATIVES} patterns"));
        }
        out.push(text.to_owned());
        return Ok(());
    };
    let (mut depth, mut from, mut choices) = (0, open + 1, Vec::new());
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b',' if depth == 1 => {
                choices.push(&text[from..at]);
                from = at + 1;
            }
            b'}' if depth == 1 => {
                choices.push(&text[from..at]);
                for choice in choices {
                    alternatives(&format!("{}{choice}{}", &text[..open], &text[at + 1..]), out)?;
                }
                return Ok(());
            }
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Err(format!("`{text}` has a brace that does not close"))
}

/// One name of a pattern, as a pattern that is compiled.
fn names(name: &str) -> Result<Regex, String> {
    let mut pattern = String::from(r"(?s-u)\A");
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push_str("(?u:.)"),
            '\\' => pattern.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            '[' => {
                pattern.push('[');
                if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    pattern.push('^');
                }
                let mut is_first = true;
                loop {
                    match chars.next() {
                        None => return Err(format!("`{name}` has a bracket that does not close")),
                        Some(']') if !is_first => break,
                        Some('-') => pattern.push('-'),
                        Some(c) => pattern.push_str(&regex::escape(&c.to_string())),
                    }
                    is_first = false;
                }
                pattern.push(']');
            }
            c => {
                pattern.push_str("(?u:");
                pattern.push_str(&regex::escape(&c.to_string()));
                pattern.push(')');
            }
        }
    }
    pattern.push_str(r"\z");
    Regex::new(&pattern).map_err(|_| format!("`{name}` is not a pattern of file names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, path: &str) -> bool {
        let globs = Glob::parse(pattern).unwrap();
        globs.iter().any(|glob| glob.matches(Path::new(path)))
    }

    #[test]
    fn patterns_and_paths() {
        for (pattern, path, expect) in [
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/b/a.log", false),
            ("/var/**/*.log", "/var/a.log", true),
            ("/var/**/*.log", "/var/x/y/a.log", true),
            ("/var/**/*.log", "/opt/x/a.log", false),
            ("/var/**", "/var/x/y", true),
            ("/v/{a,b/c}/x.?og", "/v/b/c/x.log", true),
            ("/v/{a,b{1,2}}.log", "/v/b2.log", true),
            ("/v/{a,b{1,2}}.log", "/v/b.log", false),
            ("/v/[a-c]*.log", "/v/b7.log", true),
            ("/v/[!a-c]*.log", "/v/b7.log", false),
            ("/v/a+b.log", "/v/a+b.log", true),
            ("/v/a.log", "/v/aXlog", false),
            ("logs/*", "logs/a", true),
            ("logs/*", "/logs/a", false),
            ("/v/*ö?.log", "/v/xöé.log", true),
        ] {
            assert_eq!(is_match(pattern, path), expect, "{pattern} {path}");
        }
        for pattern in ["", "/a/{b", "/a/[b", "/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_walk_finds_what_matches_and_goes_round_in_no_circle() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["x.log", "a/y.log", "a/b/z.log", "a/b/z.txt"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        let walk = |pattern: &str| {
            let mut found = Found::default();
            for glob in Glob::parse(&format!("{}/{pattern}", root.display())).unwrap() {
                glob.walk(&mut found);
            }
            let names = found
                .paths
                .iter()
                .map(|path| path.strip_prefix(root).unwrap().display().to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(walk("**/*.log"), ["a/b/z.log", "a/y.log", "x.log"]);
        assert_eq!(walk("*/*.log"), ["a/y.log"]);
        assert_eq!(walk("a/loop/*.log"), ["a/loop/x.log"]);
        assert_eq!(walk("{x,nothing}.log"), ["x.log"]);
        assert_eq!(walk("a/b/**"), ["a/b/z.log", "a/b/z.txt"]);
    }
}
