//! One collection: the files are read, and what they tell is written down as metrics.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Plan;
use super::encode::{Metric, Request, Scope, Span, Value};
use super::metrics::*;
use super::proc;
use crate::lines::now_unix_nano;

/// Bytes of one file of `/proc`: `/proc/stat` of a machine with a thousand processors has a megabyte.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Bytes of a process's command line that are told.
const MAX_COMMAND_LINE_BYTES: usize = 4 << 10;
/// Processes that are looked at; Linux's own default bound on them.
const MAX_PROCESSES: usize = 32_768;
/// Connections that are counted.
const MAX_CONNECTIONS: usize = 1_000_000;
/// Open files of a process that are counted.
const MAX_OPEN_FILES: usize = 1 << 20;
/// A request that is larger is closed, and the next begun: a machine may have thousands of processes.
const REQUEST_BYTES: usize = 2 << 20;
const NANOS: u64 = 1_000_000_000;

/// The clock of a machine that says nothing of its boot begins with the collection.
pub struct Scraper {
    plan: Plan,
    page_bytes: u64,
    /// Processor times of the last collection, for their shares.
    last_cpus: BTreeMap<String, [f64; 8]>,
    /// What could not be read, said once.
    complaints: HashSet<PathBuf>,
}

impl Scraper {
    pub fn new(plan: Plan) -> Scraper {
        Scraper {
            plan,
            page_bytes: rustix::param::page_size() as u64,
            last_cpus: BTreeMap::new(),
            complaints: HashSet::new(),
        }
    }

    /// Reads everything that is asked for.
    pub fn scrape(&mut self) -> Vec<Request> {
        let now = now_unix_nano();
        let stat = self.read("proc/stat").map(|text| proc::stat(&text)).unwrap_or_default();
        let boot = match stat.boot_unix_seconds {
            0 => now,
            seconds => seconds.saturating_mul(NANOS).min(now),
        };
        let span = Span {
            start_unix_nano: boot,
            now_unix_nano: now,
        };
        let mut requests = vec![Request::default()];
        let request = &mut requests[0];
        if self.plan.cpu.is_some() {
            self.cpu(&stat, span, request);
        }
        if let Some(load) = self.plan.load.as_ref().map(|load| load.cpu_average) {
            self.load(load, stat.cpus.len(), span, request);
        }
        if self.plan.memory.is_some() {
            self.memory(span, request);
        }
        if self.plan.disk.is_some() {
            self.disk(span, request);
        }
        if self.plan.filesystem.is_some() {
            self.filesystem(span, request);
        }
        if self.plan.network.is_some() {
            self.network(span, request);
        }
        if self.plan.paging.is_some() {
            self.paging(span, request);
        }
        if self.plan.system.is_some() {
            request.resource("hostmetrics/system", &[], |scope| {
                let uptime = now.saturating_sub(boot) as f64 / 1e9;
                scope.metric(&UPTIME, span, |points| points.put(uptime, &[]));
            });
        }
        if self.plan.processes.is_some() || self.plan.process.is_some() {
            self.processes(&stat, span, &mut requests);
        }
        requests.retain(|request| request.points > 0);
        requests
    }

    /// A file below the root; what cannot be read is said once.
    fn read(&mut self, path: &str) -> Option<String> {
        let path = self.plan.root.join(path);
        match read(&path) {
            Ok(text) => {
                self.complaints.remove(&path);
                Some(text)
            }
            Err(error) => {
                self.complain(path, &error);
                None
            }
        }
    }

    fn complain(&mut self, path: PathBuf, error: &io::Error) {
        if self.complaints.insert(path.clone()) {
            tracing::warn!("hostmetrics: {} cannot be read: {error}", path.display());
        }
    }

    fn cpu(&mut self, stat: &proc::Stat, span: Span, request: &mut Request) {
        let Some(wanted) = &self.plan.cpu else { return };
        let last = &self.last_cpus;
        request.resource("hostmetrics/cpu", &[], |scope| {
            if wanted.wants(&CPU_TIME) {
                scope.metric(&CPU_TIME, span, |points| {
                    for (cpu, seconds) in &stat.cpus {
                        for (state, seconds) in proc::CPU_STATES.iter().zip(seconds) {
                            points.put(*seconds, &[("cpu", cpu), ("state", state)]);
                        }
                    }
                });
            }
            if wanted.wants(&CPU_UTILIZATION) {
                scope.metric(&CPU_UTILIZATION, span, |points| {
                    for (cpu, seconds) in &stat.cpus {
                        let Some(before) = last.get(cpu) else { continue };
                        let spent: Vec<f64> = seconds
                            .iter()
                            .zip(before)
                            .map(|(now, before)| (now - before).max(0.0))
                            .collect();
                        let all: f64 = spent.iter().sum();
                        for (state, spent) in proc::CPU_STATES.iter().zip(&spent).filter(|_| all > 0.0) {
                            points.put(spent / all, &[("cpu", cpu), ("state", state)]);
                        }
                    }
                });
            }
            if wanted.wants(&CPU_LOGICAL) {
                scope.metric(&CPU_LOGICAL, span, |points| points.put(stat.cpus.len() as u64, &[]));
            }
        });
        self.last_cpus = stat.cpus.iter().cloned().collect();
    }

    fn load(&mut self, is_average: bool, cpus: usize, span: Span, request: &mut Request) {
        let Some(load) = self.read("proc/loadavg").and_then(|text| proc::loadavg(&text)) else {
            return;
        };
        let Some(wanted) = &self.plan.load else { return };
        let divisor = if is_average { cpus.max(1) as f64 } else { 1.0 };
        request.resource("hostmetrics/load", &[], |scope| {
            for (metric, load) in LOAD.iter().zip(load) {
                if wanted.wants(metric) {
                    scope.metric(metric, span, |points| points.put(load / divisor, &[]));
                }
            }
        });
    }

    fn memory(&mut self, span: Span, request: &mut Request) {
        let Some(text) = self.read("proc/meminfo") else { return };
        let memory = proc::meminfo(&text);
        let Some(wanted) = &self.plan.memory else { return };
        let of = |name: &str| memory.get(name).copied().unwrap_or(0);
        let total = of("MemTotal");
        let cached = of("Cached") + of("SReclaimable");
        let states = [
            ("used", total.saturating_sub(of("MemFree") + of("Buffers") + cached)),
            ("free", of("MemFree")),
            ("buffered", of("Buffers")),
            ("cached", cached),
            ("slab_reclaimable", of("SReclaimable")),
            ("slab_unreclaimable", of("SUnreclaim")),
        ];
        request.resource("hostmetrics/memory", &[], |scope| {
            if wanted.wants(&MEMORY_USAGE) {
                scope.metric(&MEMORY_USAGE, span, |points| {
                    states
                        .iter()
                        .for_each(|(state, bytes)| points.put(*bytes, &[("state", state)]));
                });
            }
            if wanted.wants(&MEMORY_UTILIZATION) && total > 0 {
                scope.metric(&MEMORY_UTILIZATION, span, |points| {
                    let share = |bytes: u64| bytes as f64 / total as f64;
                    states
                        .iter()
                        .for_each(|(state, bytes)| points.put(share(*bytes), &[("state", state)]));
                });
            }
            for (metric, bytes) in [(&MEMORY_LIMIT, total), (&MEMORY_AVAILABLE, of("MemAvailable"))] {
                if wanted.wants(metric) {
                    scope.metric(metric, span, |points| points.put(bytes, &[]));
                }
            }
        });
    }

    fn disk(&mut self, span: Span, request: &mut Request) {
        let Some(text) = self.read("proc/diskstats") else {
            return;
        };
        let Some(wanted) = &self.plan.disk else { return };
        let mut disks = proc::diskstats(&text);
        disks.retain(|disk| wanted.filter.takes(&disk.name));
        let both = |scope: &mut Scope<'_>, metric: &Metric, of: fn(&proc::Disk) -> [f64; 2], is_int: bool| {
            if !wanted.wants(metric) {
                return;
            }
            scope.metric(metric, span, |points| {
                for disk in &disks {
                    for (direction, value) in ["read", "write"].iter().zip(of(disk)) {
                        let attributes = [("device", disk.name.as_str()), ("direction", *direction)];
                        match is_int {
                            true => points.put(value as u64, &attributes),
                            false => points.put(value, &attributes),
                        }
                    }
                }
            });
        };
        request.resource("hostmetrics/disk", &[], |scope| {
            // Whole numbers below 2^53, which the kernel's counters of bytes stay under, are exact as doubles.
            both(
                scope,
                &DISK_IO,
                |disk| [disk.read_bytes as f64, disk.written_bytes as f64],
                true,
            );
            both(
                scope,
                &DISK_OPERATIONS,
                |disk| [disk.reads as f64, disk.writes as f64],
                true,
            );
            both(
                scope,
                &DISK_OPERATION_TIME,
                |disk| [disk.read_seconds, disk.write_seconds],
                false,
            );
            both(
                scope,
                &DISK_MERGED,
                |disk| [disk.reads_merged as f64, disk.writes_merged as f64],
                true,
            );
            for (metric, of) in [
                (&DISK_IO_TIME, (|disk| disk.io_seconds) as fn(&proc::Disk) -> f64),
                (&DISK_WEIGHTED, |disk| disk.weighted_seconds),
            ] {
                if wanted.wants(metric) {
                    scope.metric(metric, span, |points| {
                        disks
                            .iter()
                            .for_each(|disk| points.put(of(disk), &[("device", &disk.name)]));
                    });
                }
            }
            if wanted.wants(&DISK_PENDING) {
                scope.metric(&DISK_PENDING, span, |points| {
                    disks
                        .iter()
                        .for_each(|disk| points.put(disk.pending, &[("device", &disk.name)]));
                });
            }
        });
    }

    fn filesystem(&mut self, span: Span, request: &mut Request) {
        // Below another root, the mounts that the first process sees are the machine's.
        let own = "proc/self/mounts";
        let first = self.plan.root.join("proc/1/mounts");
        let text = match self.plan.has_root.then(|| read(&first).ok()).flatten() {
            Some(text) => Some(text),
            None => self.read(own),
        };
        let Some(text) = text else { return };
        let kinds = self.read("proc/filesystems").unwrap_or_default();
        let kinds = proc::on_devices(&kinds);
        let Some(wanted) = &self.plan.filesystem else { return };
        let mut seen = HashSet::new();
        let mounts: Vec<_> = proc::mounts(&text)
            .into_iter()
            .filter(|mount| {
                let is_virtual = !kinds.contains(&mount.kind.as_str()) && mount.kind != "zfs";
                (wanted.takes_virtual || !is_virtual)
                    && wanted.devices.takes(&mount.device)
                    && wanted.kinds.takes(&mount.kind)
                    && wanted.mount_points.takes(&mount.mount_point)
                    && seen.insert((mount.device.clone(), mount.mount_point.clone()))
            })
            .filter_map(|mount| {
                let path = self.plan.root.join(mount.mount_point.trim_start_matches('/'));
                // What is not there, or may not be looked at, is left out.
                let space = rustix::fs::statvfs(&path).ok().filter(|space| space.f_blocks > 0)?;
                Some((mount, space))
            })
            .collect();
        request.resource("hostmetrics/filesystem", &[], |scope| {
            let mut each = |metric: &Metric, of: &dyn Fn(&rustix::fs::StatVfs) -> Vec<(&'static str, u64)>| {
                if !wanted.wants(metric) {
                    return;
                }
                scope.metric(metric, span, |points| {
                    for (mount, space) in &mounts {
                        for (state, number) in of(space) {
                            points.put(number, &attributes(mount, &[("state", state)]));
                        }
                    }
                });
            };
            each(&FILESYSTEM_USAGE, &|space| {
                let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
                let reserved = space.f_bfree.saturating_sub(space.f_bavail);
                vec![
                    ("used", bytes(space.f_blocks.saturating_sub(space.f_bfree))),
                    ("free", bytes(space.f_bavail)),
                    ("reserved", bytes(reserved)),
                ]
            });
            each(&FILESYSTEM_INODES, &|space| {
                vec![
                    ("used", space.f_files.saturating_sub(space.f_ffree)),
                    ("free", space.f_ffree),
                ]
            });
            if wanted.wants(&FILESYSTEM_UTILIZATION) {
                scope.metric(&FILESYSTEM_UTILIZATION, span, |points| {
                    for (mount, space) in &mounts {
                        let used = space.f_blocks.saturating_sub(space.f_bfree);
                        let of = used + space.f_bavail;
                        if of > 0 {
                            points.put(used as f64 / of as f64, &attributes(mount, &[]));
                        }
                    }
                });
            }
        });
    }

    fn network(&mut self, span: Span, request: &mut Request) {
        // `/proc/net` is the reader's own network; below another root the machine's is the first process's.
        let folder = match self.plan.has_root && self.plan.root.join("proc/1/net/dev").exists() {
            true => "proc/1/net",
            false => "proc/net",
        };
        let Some(text) = self.read(&format!("{folder}/dev")) else {
            return;
        };
        let Some(wanted) = &self.plan.network else { return };
        let mut interfaces = proc::net_dev(&text);
        interfaces.retain(|interface| wanted.filter.takes(&interface.name));
        let connections = wanted.wants(&NETWORK_CONNECTIONS).then(|| {
            let mut counts = [0u64; proc::TCP_STATES.len()];
            for name in ["tcp", "tcp6"] {
                // Without IPv6 there is no tcp6.
                let Ok(file) = File::open(self.plan.root.join(folder).join(name)) else {
                    continue;
                };
                let lines = BufReader::new(file).lines().map_while(Result::ok);
                for state in lines.take(MAX_CONNECTIONS).filter_map(|line| proc::tcp_state(&line)) {
                    counts[state] += 1;
                }
            }
            counts
        });
        request.resource("hostmetrics/network", &[], |scope| {
            for (metric, of) in [
                (&NETWORK_IO, (|it| it.bytes) as fn(&proc::Interface) -> [u64; 2]),
                (&NETWORK_PACKETS, |it| it.packets),
                (&NETWORK_ERRORS, |it| it.errors),
                (&NETWORK_DROPPED, |it| it.dropped),
            ] {
                if wanted.wants(metric) {
                    scope.metric(metric, span, |points| {
                        for interface in &interfaces {
                            for (direction, number) in ["receive", "transmit"].iter().zip(of(interface)) {
                                points.put(number, &[("device", &interface.name), ("direction", direction)]);
                            }
                        }
                    });
                }
            }
            if let Some(counts) = connections {
                scope.metric(&NETWORK_CONNECTIONS, span, |points| {
                    for (state, count) in proc::TCP_STATES.iter().zip(counts) {
                        points.put(count, &[("protocol", "tcp"), ("state", state)]);
                    }
                });
            }
        });
    }

    fn paging(&mut self, span: Span, request: &mut Request) {
        let (swaps, text) = (
            self.read("proc/swaps").unwrap_or_default(),
            self.read("proc/vmstat").unwrap_or_default(),
        );
        let counters = proc::vmstat(&text);
        let Some(wanted) = &self.plan.paging else { return };
        let of = |name: &str| counters.get(name).copied();
        let areas = proc::swaps(&swaps);
        request.resource("hostmetrics/paging", &[], |scope| {
            if wanted.wants(&PAGING_FAULTS)
                && let (Some(all), Some(major)) = (of("pgfault"), of("pgmajfault"))
            {
                scope.metric(&PAGING_FAULTS, span, |points| {
                    points.put(major, &[("type", "major")]);
                    points.put(all.saturating_sub(major), &[("type", "minor")]);
                });
            }
            if wanted.wants(&PAGING_OPERATIONS) {
                scope.metric(&PAGING_OPERATIONS, span, |points| {
                    for (name, kind, direction) in [
                        ("pswpin", "major", "page_in"),
                        ("pswpout", "major", "page_out"),
                        ("pgpgin", "minor", "page_in"),
                        ("pgpgout", "minor", "page_out"),
                    ] {
                        if let Some(number) = of(name) {
                            points.put(number, &[("direction", direction), ("type", kind)]);
                        }
                    }
                });
            }
            if wanted.wants(&PAGING_USAGE) {
                scope.metric(&PAGING_USAGE, span, |points| {
                    for (device, size, used) in &areas {
                        points.put(*used, &[("device", device), ("state", "used")]);
                        points.put(size.saturating_sub(*used), &[("device", device), ("state", "free")]);
                    }
                });
            }
            if wanted.wants(&PAGING_UTILIZATION) {
                scope.metric(&PAGING_UTILIZATION, span, |points| {
                    for (device, size, used) in areas.iter().filter(|(_, size, _)| *size > 0) {
                        let share = *used as f64 / *size as f64;
                        points.put(share, &[("device", device), ("state", "used")]);
                        points.put(1.0 - share, &[("device", device), ("state", "free")]);
                    }
                });
            }
        });
    }

    fn processes(&mut self, stat: &proc::Stat, span: Span, requests: &mut Vec<Request>) {
        let folder = self.plan.root.join("proc");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => return self.complain(folder, &error),
        };
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
        let pids: Vec<i64> = pids.take(MAX_PROCESSES).collect();
        let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
        let (memory, users) = match self.plan.process.is_some() {
            true => (
                self.read("proc/meminfo").unwrap_or_default(),
                read(&self.plan.root.join("etc/passwd")).unwrap_or_default(),
            ),
            false => (String::new(), String::new()),
        };
        let total = proc::meminfo(&memory).get("MemTotal").copied().unwrap_or(0);
        let users = proc::users(&users);
        for pid in pids {
            let folder = folder.join(pid.to_string());
            // A process may end while it is looked at.
            let Some(process) = read(&folder.join("stat")).ok().and_then(|text| proc::process(&text)) else {
                continue;
            };
            *states.entry(proc::process_status(process.state)).or_default() += 1;
            if self
                .plan
                .process
                .as_ref()
                .is_some_and(|wanted| wanted.filter.takes(&process.name))
            {
                if requests.last().is_none_or(|request| request.out.len() > REQUEST_BYTES) {
                    requests.push(Request::default());
                }
                if let Some(request) = requests.last_mut() {
                    self.process(pid, &folder, &process, (total, &users), span, request);
                }
            }
        }
        if let Some(wanted) = &self.plan.processes
            && let Some(request) = requests.first_mut()
        {
            request.resource("hostmetrics/processes", &[], |scope| {
                if wanted.wants(&PROCESSES_COUNT) {
                    scope.metric(&PROCESSES_COUNT, span, |points| {
                        states
                            .iter()
                            .for_each(|(state, count)| points.put(*count, &[("status", state)]));
                    });
                }
                if wanted.wants(&PROCESSES_CREATED) {
                    scope.metric(&PROCESSES_CREATED, span, |points| {
                        points.put(stat.processes_created, &[])
                    });
                }
            });
        }
    }

    fn process(
        &self,
        pid: i64,
        folder: &Path,
        process: &proc::Process,
        (total_bytes, users): (u64, &BTreeMap<u64, &str>),
        span: Span,
        request: &mut Request,
    ) {
        let Some(wanted) = &self.plan.process else { return };
        let started = span.start_unix_nano + (process.started_seconds * 1e9) as u64;
        if span.now_unix_nano.saturating_sub(started) < wanted.younger_than_nanos {
            return;
        }
        let span = Span {
            start_unix_nano: started.min(span.now_unix_nano),
            ..span
        };
        let status = read(&folder.join("status")).unwrap_or_default();
        let owner = proc::named(&status, "Uid").and_then(|uid| users.get(&uid)).copied();
        let mut command_line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        command_line.truncate(MAX_COMMAND_LINE_BYTES);
        let command_line: String = String::from_utf8_lossy(&command_line)
            .replace('\0', " ")
            .trim_end()
            .to_owned();
        let path = std::fs::read_link(folder.join("exe")).map(|path| path.to_string_lossy().into_owned());
        let mut attributes = vec![
            ("process.pid", Value::Int(pid)),
            ("process.parent_pid", Value::Int(process.parent)),
            ("process.executable.name", Value::Text(&process.name)),
        ];
        if let Ok(path) = &path {
            attributes.push(("process.executable.path", Value::Text(path)));
        }
        if !command_line.is_empty() {
            let command = command_line.split(' ').next().unwrap_or_default();
            attributes.push(("process.command", Value::Text(command)));
            attributes.push(("process.command_line", Value::Text(&command_line)));
        }
        if let Some(owner) = owner {
            attributes.push(("process.owner", Value::Text(owner)));
        }
        let resident = process.resident_pages.saturating_mul(self.page_bytes);
        request.resource("hostmetrics/process", &attributes, |scope| {
            let mut put = |metric: &Metric, of: &[(f64, &[(&str, &str)])], is_int: bool| {
                if wanted.wants(metric) {
                    scope.metric(metric, span, |points| {
                        for (number, attributes) in of {
                            match is_int {
                                true => points.put(*number as u64, attributes),
                                false => points.put(*number, attributes),
                            }
                        }
                    });
                }
            };
            let times = [
                (process.user_seconds, &[("state", "user")][..]),
                (process.system_seconds, &[("state", "system")]),
                (process.wait_seconds, &[("state", "wait")]),
            ];
            put(&PROCESS_CPU_TIME, &times, false);
            put(&PROCESS_MEMORY, &[(resident as f64, &[])], true);
            put(&PROCESS_VIRTUAL, &[(process.virtual_bytes as f64, &[])], true);
            put(&PROCESS_THREADS, &[(process.threads as f64, &[])], true);
            let faults = [
                (process.major_faults as f64, &[("type", "major")][..]),
                (process.minor_faults as f64, &[("type", "minor")]),
            ];
            put(&PROCESS_FAULTS, &faults, true);
            if total_bytes > 0 {
                put(
                    &PROCESS_UTILIZATION,
                    &[(100.0 * resident as f64 / total_bytes as f64, &[])],
                    false,
                );
            }
            let age = span.now_unix_nano.saturating_sub(span.start_unix_nano) as f64 / 1e9;
            put(&PROCESS_UPTIME, &[(age, &[])], false);
            // Only root may ask of others; where it is not allowed, the metric is left out.
            if wanted.wants(&PROCESS_DISK_IO)
                && let Ok(text) = read(&folder.join("io"))
                && let (Some(read), Some(written)) =
                    (proc::named(&text, "read_bytes"), proc::named(&text, "write_bytes"))
            {
                let both = [
                    (read as f64, &[("direction", "read")][..]),
                    (written as f64, &[("direction", "write")]),
                ];
                put(&PROCESS_DISK_IO, &both, true);
            }
            if wanted.wants(&PROCESS_FILES)
                && let Ok(files) = std::fs::read_dir(folder.join("fd"))
            {
                put(
                    &PROCESS_FILES,
                    &[(files.take(MAX_OPEN_FILES).count() as f64, &[])],
                    true,
                );
            }
            if let (Some(by_will), Some(against)) = (
                proc::named(&status, "voluntary_ctxt_switches"),
                proc::named(&status, "nonvoluntary_ctxt_switches"),
            ) {
                let both = [
                    (by_will as f64, &[("type", "voluntary")][..]),
                    (against as f64, &[("type", "involuntary")]),
                ];
                put(&PROCESS_SWITCHES, &both, true);
            }
        });
    }
}

/// What tells a filesystem, and `more`.
fn attributes<'a>(mount: &'a proc::Mount, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut attributes = vec![
        ("device", mount.device.as_str()),
        ("mode", if mount.is_read_only { "ro" } else { "rw" }),
        ("mountpoint", mount.mount_point.as_str()),
    ];
    attributes.extend_from_slice(more);
    attributes.push(("type", mount.kind.as_str()));
    attributes
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
