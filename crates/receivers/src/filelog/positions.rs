//! How far each file has been read, kept across restarts: a small file in the journal's folder, to which a line is appended, and synced, after the
//! pipeline acknowledged what was read. The last line that names a file counts. It is written anew, beside itself and then renamed, when most of it is old.
//!
//! A process that dies between the acknowledgement and this line reads the lines of one batch again after its next start, and never more.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Places of files that are gone. Beyond them the oldest are forgotten; a file that comes back after so many others is new.
const MAX_REMEMBERED: usize = 10_000;
/// Places in a file of positions: what patterns may name, and what is remembered.
const MAX_PLACES: usize = super::glob::MAX_MATCHES + MAX_REMEMBERED;
/// A beginning shorter than this is too common to know a file by.
pub const MIN_PRINT_BYTES: u32 = 16;
/// A file of positions is written anew when it has so many lines more than twice what counts.
const SLACK_LINES: usize = 1_000;
/// A line of positions at most, and so the longest path; Linux has 4,096 bytes, which JSON may double.
const MAX_LINE_BYTES: u64 = 16 << 10;

/// The beginning of a file: whoever has the same is the same file, under whatever name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint {
    pub len: u32,
    hash: [u8; 16],
}

impl Fingerprint {
    pub fn of(head: &[u8]) -> Fingerprint {
        let digest = Sha256::digest(head);
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Fingerprint {
            len: head.len() as u32,
            hash,
        }
    }

    /// Whether a file that begins so may be this one, grown or not.
    pub fn begins(&self, head: &[u8]) -> bool {
        head.get(..self.len as usize)
            .is_some_and(|head| Fingerprint::of(head) == *self)
    }
}

/// A file, as the filesystem knows it; zeros for one that is known by its beginning alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Inode {
    pub device: u64,
    pub inode: u64,
}

/// How far a file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub inode: Inode,
    pub print: Fingerprint,
    pub offset: u64,
    /// Where it was last seen.
    pub path: PathBuf,
}

/// Places of files that are not there now, found by inode or by beginning.
#[derive(Debug, Default)]
pub struct Archive {
    places: BTreeMap<u64, Place>,
    by_inode: HashMap<Inode, u64>,
    by_print: HashMap<Fingerprint, Vec<u64>>,
    /// How many beginnings there are of each length: a file's is cut to each of these.
    lengths: BTreeMap<u32, usize>,
    next: u64,
}

impl FromIterator<Place> for Archive {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Archive {
        let mut archive = Archive::default();
        places.into_iter().for_each(|place| archive.insert(place));
        archive
    }
}

impl Archive {
    pub fn insert(&mut self, place: Place) {
        // Before the first look at the files, all that were followed are here.
        if self.places.len() >= MAX_PLACES
            && let Some(oldest) = self.places.keys().next().copied()
        {
            self.take_out(oldest);
        }
        let at = self.next;
        self.next += 1;
        if place.inode != Inode::default() {
            self.by_inode.insert(place.inode, at);
        }
        self.by_print.entry(place.print).or_default().push(at);
        *self.lengths.entry(place.print.len).or_default() += 1;
        self.places.insert(at, place);
    }

    /// The place that a file goes on from which begins so: its inode's before all, else that of the longest beginning that it has.
    pub fn take(&mut self, inode: Inode, head: &[u8], size: u64) -> Option<Place> {
        let fits = |place: &Place| size >= place.offset && place.print.begins(head);
        if let Some(at) = self.by_inode.get(&inode).copied()
            && self.places.get(&at).is_some_and(fits)
        {
            return self.take_out(at);
        }
        let lengths = self.lengths.range(MIN_PRINT_BYTES..).rev();
        let mut fitting_lengths = lengths.skip_while(|(len, _)| **len as usize > head.len());
        let found = fitting_lengths.find_map(|(len, _)| {
            let same = self.by_print.get(&Fingerprint::of(&head[..*len as usize]))?;
            let fitting = same
                .iter()
                .filter(|at| self.places.get(at).is_some_and(|place| size >= place.offset));
            fitting
                .max_by_key(|at| self.places.get(at).map(|place| place.offset))
                .copied()
        });
        self.take_out(found?)
    }

    pub fn remove(&mut self, place: &Place) {
        let same = self.by_print.get(&place.print).into_iter().flatten();
        let found = same.copied().find(|at| self.places.get(at) == Some(place));
        if let Some(at) = found {
            self.take_out(at);
        }
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<Place> {
        self.places.values().cloned().collect()
    }

    /// Forgets the oldest beyond the bound.
    pub fn trim(&mut self) {
        while self.places.len() > MAX_REMEMBERED
            && let Some(oldest) = self.places.keys().next().copied()
        {
            self.take_out(oldest);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn take_out(&mut self, at: u64) -> Option<Place> {
        let place = self.places.remove(&at)?;
        if self.by_inode.get(&place.inode) == Some(&at) {
            self.by_inode.remove(&place.inode);
        }
        if let Some(same) = self.by_print.get_mut(&place.print) {
            same.retain(|other| *other != at);
            if same.is_empty() {
                self.by_print.remove(&place.print);
            }
        }
        if let Some(count) = self.lengths.get_mut(&place.print.len) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&place.print.len);
            }
        }
        Some(place)
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    device: u64,
    inode: u64,
    offset: u64,
    head_bytes: u32,
    head: String,
    path: PathBuf,
}

/// The file of positions of one receiver; or, without a folder to write to, nothing.
pub struct Positions {
    path: Option<PathBuf>,
    file: Option<File>,
    lines: usize,
}

impl Positions {
    /// Reads what is there. The places come oldest first; `None` for a receiver that was never here.
    pub fn open(path: Option<PathBuf>) -> io::Result<(Positions, Option<Vec<Place>>)> {
        let Some(path) = path else {
            return Ok((
                Positions {
                    path: None,
                    file: None,
                    lines: 0,
                },
                None,
            ));
        };
        let found = match File::open(&path) {
            Ok(file) => Some(read(file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut positions = Positions {
            path: Some(path),
            file: None,
            lines: 0,
        };
        // What a crash left half written goes.
        positions.rewrite(found.as_deref().unwrap_or(&[]))?;
        Ok((positions, found))
    }

    /// Whether it is time for [`Positions::rewrite`].
    pub fn is_old(&self, places: usize) -> bool {
        self.file.is_none() || self.lines > 2 * places + SLACK_LINES
    }

    /// Adds places, durably.
    pub fn append(&mut self, places: &[Place]) -> io::Result<()> {
        if self.path.is_none() || places.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the file of positions could not be written before"));
        };
        let written = file.write_all(&text(places)).and_then(|()| file.sync_data());
        match written {
            Ok(()) => self.lines += places.len(),
            // Half a line may stand there: nothing is appended to that.
            Err(_) => self.file = None,
        }
        written
    }

    /// Writes all places anew.
    pub fn rewrite(&mut self, places: &[Place]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.file = None;
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&text(places))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = Some(OpenOptions::new().append(true).open(path)?);
        self.lines = places.len();
        Ok(())
    }
}

/// The name of a receiver as a file's, in which no two receivers are the same.
pub fn file_name(receiver: &str) -> String {
    let mut name = String::new();
    for byte in receiver.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte as char),
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

fn text(places: &[Place]) -> Vec<u8> {
    let mut text = Vec::with_capacity(places.len() * 200);
    for place in places {
        let line = Line {
            device: place.inode.device,
            inode: place.inode.inode,
            offset: place.offset,
            head_bytes: place.print.len,
            head: place.print.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            path: place.path.clone(),
        };
        let before = text.len();
        // A path that is not UTF-8 cannot be said in JSON; its file is known by inode and beginning.
        if serde_json::to_writer(&mut text, &line).is_err() {
            text.truncate(before);
            let line = Line {
                path: PathBuf::new(),
                ..line
            };
            // Vectors take everything, and numbers and hex digits are always JSON.
            let _ = serde_json::to_writer(&mut text, &line);
        }
        text.push(b'\n');
    }
    text
}

fn read(file: File) -> io::Result<Vec<Place>> {
    use std::io::{BufRead, BufReader, Read};
    let mut places: Vec<Option<Place>> = Vec::new();
    let mut known = HashMap::new();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(place) = place_of(&line) else { continue };
        let key = match place.inode == Inode::default() {
            true => (place.inode, place.print),
            false => (place.inode, Fingerprint::default()),
        };
        if let Some(before) = known.insert(key, places.len()) {
            places[before] = None;
        }
        places.push(Some(place));
    }
    let mut places: Vec<Place> = places.into_iter().flatten().collect();
    let surplus = places.len().saturating_sub(MAX_PLACES);
    places.drain(..surplus);
    Ok(places)
}

fn place_of(line: &[u8]) -> Option<Place> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let mut hash = [0; 16];
    if line.head.len() != 32 || !line.head.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&line.head[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Place {
        inode: Inode {
            device: line.device,
            inode: line.inode,
        },
        print: Fingerprint {
            len: line.head_bytes,
            hash,
        },
        offset: line.offset,
        path: Path::new(&line.path).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(inode: u64, offset: u64) -> Place {
        Place {
            inode: Inode { device: 1, inode },
            print: Fingerprint::of(b"the beginning"),
            offset,
            path: "/var/log/a \"quoted\".log".into(),
        }
    }

    #[test]
    fn the_last_word_counts_and_half_a_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions/filelog");
        let (mut positions, before) = Positions::open(Some(path.clone())).unwrap();
        assert_eq!(before, None, "never here");
        positions.append(&[place(1, 10), place(2, 5)]).unwrap();
        positions.append(&[place(1, 20)]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"device":1,"inode":2,"offset":99,"head_by"#)
            .unwrap();
        let (mut positions, places) = Positions::open(Some(path.clone())).unwrap();
        assert_eq!(places, Some(vec![place(2, 5), place(1, 20)]));
        positions.append(&[place(2, 7)]).unwrap();
        let (_, places) = Positions::open(Some(path)).unwrap();
        assert_eq!(places, Some(vec![place(1, 20), place(2, 7)]));
    }

    /// The example of `docs/format/positions.md`: what was written once is read for ever.
    #[test]
    fn an_old_file_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filelog");
        let text = "{\"device\":65024,\"inode\":131,\"offset\":2048,\"head_bytes\":13,\"head\":\"b5e9f7a1c2d34e5f60718293a4b5c6d7\",\"path\":\"/var/log/app.log\"}\nnot a line\n";
        std::fs::write(&path, text).unwrap();
        let (_, places) = Positions::open(Some(path)).unwrap();
        let places = places.unwrap();
        assert_eq!(places.len(), 1);
        assert_eq!(
            (places[0].inode.inode, places[0].offset, places[0].print.len),
            (131, 2048, 13)
        );
        assert_eq!(places[0].print.hash[..2], [0xb5, 0xe9]);
        assert_eq!(places[0].path, Path::new("/var/log/app.log"));
    }

    #[test]
    fn names_of_receivers_stay_apart() {
        assert_eq!(file_name("filelog/app.x"), "filelog%2fapp%2ex");
        assert_ne!(file_name("filelog/a_b"), file_name("filelog/a/b"));
    }

    #[test]
    fn a_beginning_is_found_in_what_grew() {
        let print = Fingerprint::of(b"abc");
        assert!(print.begins(b"abcdef") && print.begins(b"abc"));
        assert!(!print.begins(b"ab") && !print.begins(b"abX"));
        assert!(Fingerprint::of(b"").begins(b""));
    }
}
