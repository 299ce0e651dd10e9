//! What the kernel tells in `/proc`, read from its texts. Sources: proc(5), and the kernel's `Documentation/admin-guide/iostats.rst`.
//!
//! Whatever a line lacks that should be there makes the line absent rather than wrong.

use std::collections::BTreeMap;

/// Clock ticks in a second as `/proc` counts them: fixed at 100 for programs, whatever the kernel itself uses.
const TICKS_PER_SECOND: f64 = 100.0;

/// States of a processor, in the order of `/proc/stat`.
pub const CPU_STATES: [&str; 8] = [
    "user",
    "nice",
    "system",
    "idle",
    "wait",
    "interrupt",
    "softirq",
    "steal",
];

/// `/proc/stat`.
#[derive(Debug, Default, PartialEq)]
pub struct Stat {
    /// Each processor's name, and its seconds by [`CPU_STATES`].
    pub cpus: Vec<(String, [f64; 8])>,
    pub boot_unix_seconds: u64,
    pub processes_created: u64,
}

pub fn stat(text: &str) -> Stat {
    let mut stat = Stat::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("btime") => stat.boot_unix_seconds = number(words.next()),
            Some("processes") => stat.processes_created = number(words.next()),
            // `cpu` alone is all of them together.
            Some(name) if name.len() > 3 && name.starts_with("cpu") => {
                let mut seconds = [0.0; 8];
                for (second, word) in seconds.iter_mut().zip(words) {
                    *second = number(Some(word)) as f64 / TICKS_PER_SECOND;
                }
                stat.cpus.push((name.to_owned(), seconds));
            }
            _ => {}
        }
    }
    stat
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// `/proc/meminfo` in bytes.
pub fn meminfo(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let unit = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name, number.checked_mul(unit)?))
    });
    pairs.collect()
}

/// `/proc/vmstat`.
pub fn vmstat(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| {
        let (name, number) = line.split_once(' ')?;
        Some((name, number.trim().parse().ok()?))
    });
    pairs.collect()
}

/// `/proc/loadavg`: over one, five and fifteen minutes.
pub fn loadavg(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
    Some([words.next()??, words.next()??, words.next()??])
}

/// One device of `/proc/diskstats`. Bytes and seconds.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Disk {
    pub name: String,
    pub reads: u64,
    pub reads_merged: u64,
    pub read_bytes: u64,
    pub read_seconds: f64,
    pub writes: u64,
    pub writes_merged: u64,
    pub written_bytes: u64,
    pub write_seconds: f64,
    pub pending: u64,
    pub io_seconds: f64,
    pub weighted_seconds: f64,
}

/// The kernel counts in sectors of this size, whatever the device's.
const SECTOR_BYTES: u64 = 512;

pub fn diskstats(text: &str) -> Vec<Disk> {
    let disks = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, name, numbers @ ..] = &words[..] else {
            return None;
        };
        if numbers.len() < 11 {
            return None;
        }
        let at = |at: usize| number(numbers.get(at).copied());
        let seconds = |index: usize| at(index) as f64 / 1000.0;
        Some(Disk {
            name: (*name).to_owned(),
            reads: at(0),
            reads_merged: at(1),
            read_bytes: at(2).saturating_mul(SECTOR_BYTES),
            read_seconds: seconds(3),
            writes: at(4),
            writes_merged: at(5),
            written_bytes: at(6).saturating_mul(SECTOR_BYTES),
            write_seconds: seconds(7),
            pending: at(8),
            io_seconds: seconds(9),
            weighted_seconds: seconds(10),
        })
    });
    disks.collect()
}

/// One interface of `/proc/net/dev`: received, then sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub bytes: [u64; 2],
    pub packets: [u64; 2],
    pub errors: [u64; 2],
    pub dropped: [u64; 2],
}

pub fn net_dev(text: &str) -> Vec<Interface> {
    let interfaces = text.lines().filter_map(|line| {
        // The name may stand right before its first number.
        let (name, rest) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = rest.split_ascii_whitespace().map(|word| number(Some(word))).collect();
        if numbers.len() < 16 {
            return None;
        }
        let both = |at: usize| [numbers[at], numbers[at + 8]];
        Some(Interface {
            name: name.trim().to_owned(),
            bytes: both(0),
            packets: both(1),
            errors: both(2),
            dropped: both(3),
        })
    });
    interfaces.collect()
}

/// States of a TCP connection; the kernel numbers them from 1.
pub const TCP_STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "DELETE",
];

/// The state of one line of `/proc/net/tcp`, as an index into [`TCP_STATES`].
pub fn tcp_state(line: &str) -> Option<usize> {
    let word = line.split_ascii_whitespace().nth(3)?;
    let state = usize::from_str_radix(word, 16).ok()?.checked_sub(1)?;
    (state < TCP_STATES.len()).then_some(state)
}

/// A mount of `/proc/self/mountinfo` or `/proc/1/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub mount_point: String,
    pub kind: String,
    pub is_read_only: bool,
}

/// `/proc/self/mounts`.
pub fn mounts(text: &str) -> Vec<Mount> {
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(Mount {
            device: unescaped(words.next()?),
            mount_point: unescaped(words.next()?),
            kind: words.next()?.to_owned(),
            is_read_only: words.next()?.split(',').any(|option| option == "ro"),
        })
    });
    mounts.collect()
}

/// Spaces and the like stand as `\040`.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Kinds of filesystems that lie on a device, from `/proc/filesystems`.
pub fn on_devices(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("nodev"));
    lines.map(str::trim).filter(|kind| !kind.is_empty()).collect()
}

/// One area of `/proc/swaps`: its name, its size and what is used of it, in bytes.
pub fn swaps(text: &str) -> Vec<(String, u64, u64)> {
    let areas = text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = unescaped(words.next()?);
        let mut bytes = words.skip(1).map(|word| word.parse::<u64>().ok()?.checked_mul(1024));
        Some((name, bytes.next()??, bytes.next()??))
    });
    areas.collect()
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    pub name: String,
    pub state: char,
    pub parent: i64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub user_seconds: f64,
    pub system_seconds: f64,
    pub wait_seconds: f64,
    pub threads: u64,
    /// Seconds after the boot.
    pub started_seconds: f64,
    pub virtual_bytes: u64,
    pub resident_pages: u64,
}

pub fn process(text: &str) -> Option<Process> {
    // The name is in brackets and may itself have some.
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let words: Vec<&str> = after.split_ascii_whitespace().collect();
    if words.len() < 22 {
        return None;
    }
    let at = |at: usize| number(words.get(at).copied());
    let seconds = |index: usize| at(index) as f64 / TICKS_PER_SECOND;
    Some(Process {
        name: name.to_owned(),
        state: words[0].chars().next()?,
        parent: words[1].parse().ok()?,
        minor_faults: at(7),
        major_faults: at(9),
        user_seconds: seconds(11),
        system_seconds: seconds(12),
        threads: at(17),
        started_seconds: seconds(19),
        virtual_bytes: at(20),
        resident_pages: at(21),
        wait_seconds: seconds(39),
    })
}

/// The name under which the collector counts processes of this state.
pub fn process_status(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "blocked",
        'I' => "idle",
        'T' | 't' => "stopped",
        'Z' => "zombies",
        'W' => "paging",
        _ => "unknown",
    }
}

/// A number of `/proc/PID/io` or `/proc/PID/status`: `name: 17`.
pub fn named(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Names of users by their numbers, from `/etc/passwd`.
pub fn users(text: &str) -> BTreeMap<u64, &str> {
    let users = text.lines().filter_map(|line| {
        let mut words = line.split(':');
        let name = words.next()?;
        Some((words.nth(1)?.parse().ok()?, name))
    });
    users.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_machine_with_two_processors() {
        let text = "cpu  346798 14233 47357 129510 1032 0 364 441 0 0\ncpu0 170384 7096 22251 69669 255 1 27 213 0 0\ncpu1 100 0\nintr 2145946 0\nctxt 3472709\nbtime 1795201445\nprocesses 8123\nprocs_running 3\n";
        let stat = stat(text);
        assert_eq!(stat.cpus.len(), 2);
        assert_eq!(
            stat.cpus[0],
            ("cpu0".into(), [1703.84, 70.96, 222.51, 696.69, 2.55, 0.01, 0.27, 2.13])
        );
        assert_eq!(stat.cpus[1].1[0], 1.0);
        assert_eq!((stat.boot_unix_seconds, stat.processes_created), (1_795_201_445, 8_123));
    }

    #[test]
    fn tables_of_names_and_numbers() {
        let memory = meminfo("MemTotal:       24684084 kB\nHugePages_Total:       3\nbroken\nMemFree: x kB\n");
        assert_eq!(memory.get("MemTotal"), Some(&25_276_502_016));
        assert_eq!(memory.get("HugePages_Total"), Some(&3));
        assert_eq!(memory.len(), 2);
        assert_eq!(vmstat("pgfault 17\npgmajfault 2\nodd\n").get("pgfault"), Some(&17));
        assert_eq!(loadavg("8.72 8.06 6.45 12/178 10739\n"), Some([8.72, 8.06, 6.45]));
        assert_eq!(loadavg("8.72"), None);
        assert_eq!(named("rchar: 7278\nread_bytes: 12\n", "read_bytes"), Some(12));
        assert_eq!(named("VmSize:\t    3060 kB\n", "VmSize"), Some(3_060));
        assert_eq!(users("root:x:0:0:root:/root:/bin/sh\nbad\n").get(&0), Some(&"root"));
    }

    #[test]
    fn disks_and_interfaces() {
        let disks = diskstats(
            " 259       0 nvme0n1 100 1 2000 500 50 2 4000 250 3 700 800 0 0 0 0 9 9\n   8       1 sda1 short\n",
        );
        assert_eq!(disks.len(), 1);
        let disk = &disks[0];
        assert_eq!(
            (disk.name.as_str(), disk.reads, disk.read_bytes),
            ("nvme0n1", 100, 1_024_000)
        );
        assert_eq!((disk.written_bytes, disk.pending), (2_048_000, 3));
        assert_eq!((disk.io_seconds, disk.weighted_seconds), (0.7, 0.8));
        let interfaces = net_dev(
            "Inter-|   Receive  |  Transmit\n face |bytes    packets\n    lo:129354656   20363    1    2    0     0          0         0 9 8    7    6    0     0       0          0\n",
        );
        assert_eq!(
            interfaces,
            [Interface {
                name: "lo".into(),
                bytes: [129_354_656, 9],
                packets: [20_363, 8],
                errors: [1, 7],
                dropped: [2, 6],
            }]
        );
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        assert_eq!(tcp_state(line).map(|state| TCP_STATES[state]), Some("LISTEN"));
        assert_eq!(tcp_state("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn mounts_and_swaps() {
        let mounts = mounts("/dev/vda / ext4 rw,relatime 0 0\n/dev/sdb /mnt/with\\040space xfs ro,noatime 0 0\nproc\n");
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            (mounts[1].mount_point.as_str(), mounts[1].is_read_only),
            ("/mnt/with space", true)
        );
        assert!(!mounts[0].is_read_only);
        assert_eq!(
            on_devices("nodev\tsysfs\n\text4\nnodev\ttmpfs\n\txfs\n"),
            ["ext4", "xfs"]
        );
        let areas = swaps("Filename\tType\tSize\tUsed\tPriority\n/dev/sda2  partition  2048  1024  -2\n/x file\n");
        assert_eq!(areas, [("/dev/sda2".to_owned(), 2_097_152, 1_048_576)]);
    }

    #[test]
    fn a_process_whose_name_has_brackets() {
        let text = "10751 (a) b (c) R 10421 10421 27825 0 -1 4194304 126 0 3 0 250 150 0 0 20 0 4 0 270671 3133440 411 18446744073709551615 1 1 1 0 0 0 0 0 0 0 0 0 17 0 0 0 50 0 0 0 0 0 0 0 0 0 0";
        let process = process(text).unwrap();
        assert_eq!(
            (process.name.as_str(), process.state, process.parent),
            ("a) b (c", 'R', 10_421)
        );
        assert_eq!(
            (process.minor_faults, process.major_faults, process.threads),
            (126, 3, 4)
        );
        assert_eq!(
            (process.user_seconds, process.system_seconds, process.wait_seconds),
            (2.5, 1.5, 0.5)
        );
        assert_eq!(
            (process.started_seconds, process.virtual_bytes, process.resident_pages),
            (2706.71, 3_133_440, 411)
        );
        assert!(super::process("1 (x) S 0").is_none());
    }
}
