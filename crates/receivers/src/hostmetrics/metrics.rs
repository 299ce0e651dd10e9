//! Every metric that is collected, as the OpenTelemetry Collector's `hostmetrics` receiver names and describes it.

use super::encode::{Kind, Metric};

const fn metric(name: &'static str, unit: &'static str, kind: Kind, about: &'static str) -> Metric {
    Metric {
        name,
        unit,
        about,
        kind,
        is_default: true,
    }
}

/// Only collected where the configuration asks for it.
const fn optional(name: &'static str, unit: &'static str, kind: Kind, about: &'static str) -> Metric {
    Metric {
        is_default: false,
        ..metric(name, unit, kind, about)
    }
}

use Kind::{Counter, Gauge, Sum};

pub static CPU_TIME: Metric = metric(
    "system.cpu.time",
    "s",
    Counter,
    "Seconds that each processor spent in each state.",
);
pub static CPU_UTILIZATION: Metric = optional(
    "system.cpu.utilization",
    "1",
    Gauge,
    "Share of the time since the last collection that each processor spent in each state.",
);
pub static CPU_LOGICAL: Metric = optional("system.cpu.logical.count", "{cpu}", Sum, "Logical processors.");
pub static CPU: &[&Metric] = &[&CPU_TIME, &CPU_UTILIZATION, &CPU_LOGICAL];

pub static LOAD_1M: Metric = metric(
    "system.cpu.load_average.1m",
    "{thread}",
    Gauge,
    "Load, averaged over one minute.",
);
pub static LOAD_5M: Metric = metric(
    "system.cpu.load_average.5m",
    "{thread}",
    Gauge,
    "Load, averaged over five minutes.",
);
pub static LOAD_15M: Metric = metric(
    "system.cpu.load_average.15m",
    "{thread}",
    Gauge,
    "Load, averaged over fifteen minutes.",
);
pub static LOAD: &[&Metric] = &[&LOAD_1M, &LOAD_5M, &LOAD_15M];

pub static MEMORY_USAGE: Metric = metric("system.memory.usage", "By", Sum, "Memory by what it is used for.");
pub static MEMORY_UTILIZATION: Metric = optional(
    "system.memory.utilization",
    "1",
    Gauge,
    "Share of the memory by what it is used for.",
);
pub static MEMORY_LIMIT: Metric = optional("system.memory.limit", "By", Sum, "All memory of the machine.");
pub static MEMORY_AVAILABLE: Metric = optional(
    "system.linux.memory.available",
    "By",
    Sum,
    "What a new program could take without swapping, as the kernel estimates it.",
);
pub static MEMORY: &[&Metric] = &[&MEMORY_USAGE, &MEMORY_UTILIZATION, &MEMORY_LIMIT, &MEMORY_AVAILABLE];

pub static DISK_IO: Metric = metric("system.disk.io", "By", Counter, "Bytes read and written.");
pub static DISK_OPERATIONS: Metric = metric("system.disk.operations", "{operations}", Counter, "Reads and writes.");
pub static DISK_IO_TIME: Metric = metric(
    "system.disk.io_time",
    "s",
    Counter,
    "Time in which something was under way.",
);
pub static DISK_OPERATION_TIME: Metric = metric(
    "system.disk.operation_time",
    "s",
    Counter,
    "Time that reads and writes took, added up.",
);
pub static DISK_WEIGHTED: Metric = metric(
    "system.disk.weighted_io_time",
    "s",
    Counter,
    "Time in which something was under way, times how much was.",
);
pub static DISK_PENDING: Metric = metric(
    "system.disk.pending_operations",
    "{operations}",
    Sum,
    "Operations that are under way.",
);
pub static DISK_MERGED: Metric = metric(
    "system.disk.merged",
    "{operations}",
    Counter,
    "Reads and writes that were merged into others.",
);
pub static DISK: &[&Metric] = &[
    &DISK_IO,
    &DISK_OPERATIONS,
    &DISK_IO_TIME,
    &DISK_OPERATION_TIME,
    &DISK_WEIGHTED,
    &DISK_PENDING,
    &DISK_MERGED,
];

pub static FILESYSTEM_USAGE: Metric = metric(
    "system.filesystem.usage",
    "By",
    Sum,
    "Bytes of a filesystem that are used, free, and free for root alone.",
);
pub static FILESYSTEM_INODES: Metric = metric(
    "system.filesystem.inodes.usage",
    "{inodes}",
    Sum,
    "Inodes of a filesystem that are used and free.",
);
pub static FILESYSTEM_UTILIZATION: Metric = optional(
    "system.filesystem.utilization",
    "1",
    Gauge,
    "Share of a filesystem that is used.",
);
pub static FILESYSTEM: &[&Metric] = &[&FILESYSTEM_USAGE, &FILESYSTEM_INODES, &FILESYSTEM_UTILIZATION];

pub static NETWORK_IO: Metric = metric("system.network.io", "By", Counter, "Bytes received and sent.");
pub static NETWORK_PACKETS: Metric = metric(
    "system.network.packets",
    "{packets}",
    Counter,
    "Packets received and sent.",
);
pub static NETWORK_ERRORS: Metric = metric(
    "system.network.errors",
    "{errors}",
    Counter,
    "Errors in receiving and sending.",
);
pub static NETWORK_DROPPED: Metric = metric("system.network.dropped", "{packets}", Counter, "Packets dropped.");
pub static NETWORK_CONNECTIONS: Metric = metric(
    "system.network.connections",
    "{connections}",
    Sum,
    "TCP connections by state.",
);
pub static NETWORK: &[&Metric] = &[
    &NETWORK_IO,
    &NETWORK_PACKETS,
    &NETWORK_ERRORS,
    &NETWORK_DROPPED,
    &NETWORK_CONNECTIONS,
];

pub static PAGING_FAULTS: Metric = metric("system.paging.faults", "{faults}", Counter, "Page faults.");
pub static PAGING_OPERATIONS: Metric = metric(
    "system.paging.operations",
    "{operations}",
    Counter,
    "Pages moved: by swapping (major), and from and to files (minor, in KiB as the kernel counts them).",
);
pub static PAGING_USAGE: Metric = metric("system.paging.usage", "By", Sum, "Swap space.");
pub static PAGING_UTILIZATION: Metric = optional("system.paging.utilization", "1", Gauge, "Share of the swap space.");
pub static PAGING: &[&Metric] = &[&PAGING_FAULTS, &PAGING_OPERATIONS, &PAGING_USAGE, &PAGING_UTILIZATION];

pub static PROCESSES_COUNT: Metric = metric("system.processes.count", "{processes}", Sum, "Processes by state.");
pub static PROCESSES_CREATED: Metric = metric("system.processes.created", "{processes}", Counter, "Processes created.");
pub static PROCESSES: &[&Metric] = &[&PROCESSES_COUNT, &PROCESSES_CREATED];

pub static UPTIME: Metric = metric("system.uptime", "s", Gauge, "Time since the machine was started.");
pub static SYSTEM: &[&Metric] = &[&UPTIME];

pub static PROCESS_CPU_TIME: Metric = metric("process.cpu.time", "s", Counter, "Processor time of a process.");
pub static PROCESS_DISK_IO: Metric = metric(
    "process.disk.io",
    "By",
    Counter,
    "Bytes that a process had read from and written to disks.",
);
pub static PROCESS_MEMORY: Metric = metric("process.memory.usage", "By", Sum, "Physical memory of a process.");
pub static PROCESS_VIRTUAL: Metric = metric("process.memory.virtual", "By", Sum, "Virtual memory of a process.");
pub static PROCESS_UTILIZATION: Metric = optional(
    "process.memory.utilization",
    "1",
    Gauge,
    "Share of the machine's memory that a process has, in percent.",
);
pub static PROCESS_THREADS: Metric = optional("process.threads", "{threads}", Sum, "Threads of a process.");
pub static PROCESS_FILES: Metric = optional(
    "process.open_file_descriptors",
    "{count}",
    Sum,
    "Open files of a process.",
);
pub static PROCESS_FAULTS: Metric = optional(
    "process.paging.faults",
    "{faults}",
    Counter,
    "Page faults of a process.",
);
pub static PROCESS_SWITCHES: Metric = optional(
    "process.context_switches",
    "{count}",
    Counter,
    "How often a process gave up a processor, by its will and against it.",
);
pub static PROCESS_UPTIME: Metric = optional("process.uptime", "s", Gauge, "Time since a process was started.");
pub static PROCESS: &[&Metric] = &[
    &PROCESS_CPU_TIME,
    &PROCESS_DISK_IO,
    &PROCESS_MEMORY,
    &PROCESS_VIRTUAL,
    &PROCESS_UTILIZATION,
    &PROCESS_THREADS,
    &PROCESS_FILES,
    &PROCESS_FAULTS,
    &PROCESS_SWITCHES,
    &PROCESS_UPTIME,
];
