//! Why: everything that is refused, rejected or dropped is counted by a reason, and a reason is one word from one list, so that the ledger,
//! the metrics, the log and the answer to a client say the same.

/// Why items were not taken, or were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The memory budget or the resident size is at its limit.
    MemoryLimit,
    /// The journal is at `max_bytes`, or the disk at its reserve.
    JournalFull,
    /// The journal could not be written.
    JournalFailed,
    /// We are shutting down.
    ShuttingDown,
    /// Too many requests at this door at once.
    TooBusy,
    /// Larger than a limit on size.
    TooLarge,
    /// Bytes that do not decode.
    Malformed,
    /// An item without an id, or with an id of the wrong length.
    BadId,
    /// An item fault that is neither of those.
    BadItem,
    /// No pipeline takes this signal from this receiver.
    NoPipeline,
    /// The sender may not write here.
    Unauthorized,
    /// The backend is not reachable, or asked to wait.
    BackendUnavailable,
    /// The backend does not accept who we are: a token that expired, a right that is missing.
    BackendUnauthorized,
    /// The backend refused it for good.
    BackendRejected,
    /// The exporter does not take this signal.
    Unsupported,
    /// `max_elapsed_time` of the exporter was reached.
    RetriesExhausted,
    /// `queue_size` of the exporter was reached.
    QueueFull,
    /// The journal was full and this reader gives up its own oldest records.
    SkippedOldest,
    /// A record of the journal that cannot be read as a batch.
    UnreadableRecord,
    /// A processor of the configuration dropped it on purpose; its sender hears that all is well.
    Filtered,
    /// A sampler's share did not include it; its sender hears that all is well.
    NotSampled,
    /// A statement of a processor failed on it, and its `error_mode` is `propagate`.
    StatementFailed,
    /// `metadata_cardinality_limit` of a `batch` processor was reached, and this request has yet another value.
    MetadataLimit,
    /// A data point that is not later than the one before of its stream.
    OutOfOrder,
    /// A data point of a stream for which a processor has no room.
    StreamLimit,
    /// The first data point of a stream, from which differences begin.
    FirstOfStream,
    /// A data point whose buckets cannot be compared with those before.
    Incompatible,
    /// A data point that says that nothing was measured, or nothing that can be counted.
    NoValue,
    /// The duty to answer was lost (a panic, a task that was dropped).
    Lost,
}

impl Reason {
    pub const ALL: [Reason; 29] = [
        Reason::MemoryLimit,
        Reason::JournalFull,
        Reason::JournalFailed,
        Reason::ShuttingDown,
        Reason::TooBusy,
        Reason::TooLarge,
        Reason::Malformed,
        Reason::BadId,
        Reason::BadItem,
        Reason::NoPipeline,
        Reason::Unauthorized,
        Reason::BackendUnavailable,
        Reason::BackendUnauthorized,
        Reason::BackendRejected,
        Reason::Unsupported,
        Reason::RetriesExhausted,
        Reason::QueueFull,
        Reason::SkippedOldest,
        Reason::UnreadableRecord,
        Reason::Filtered,
        Reason::NotSampled,
        Reason::StatementFailed,
        Reason::MetadataLimit,
        Reason::OutOfOrder,
        Reason::StreamLimit,
        Reason::FirstOfStream,
        Reason::Incompatible,
        Reason::NoValue,
        Reason::Lost,
    ];

    /// The word under which it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::MemoryLimit => "memory_limit",
            Reason::JournalFull => "journal_full",
            Reason::JournalFailed => "journal_failed",
            Reason::ShuttingDown => "shutting_down",
            Reason::TooBusy => "too_busy",
            Reason::TooLarge => "too_large",
            Reason::Malformed => "malformed",
            Reason::BadId => "bad_id",
            Reason::BadItem => "bad_item",
            Reason::NoPipeline => "no_pipeline",
            Reason::Unauthorized => "unauthorized",
            Reason::BackendUnavailable => "backend_unavailable",
            Reason::BackendUnauthorized => "backend_unauthorized",
            Reason::BackendRejected => "backend_rejected",
            Reason::Unsupported => "unsupported",
            Reason::RetriesExhausted => "retries_exhausted",
            Reason::QueueFull => "queue_full",
            Reason::SkippedOldest => "skipped_oldest",
            Reason::UnreadableRecord => "unreadable_record",
            Reason::Filtered => "filtered",
            Reason::NotSampled => "not_sampled",
            Reason::StatementFailed => "statement_failed",
            Reason::MetadataLimit => "metadata_limit",
            Reason::OutOfOrder => "out_of_order",
            Reason::StreamLimit => "stream_limit",
            Reason::FirstOfStream => "first_of_stream",
            Reason::Incompatible => "incompatible",
            Reason::NoValue => "no_value",
            Reason::Lost => "lost",
        }
    }

    /// One sentence for the sender.
    pub fn explanation(self) -> &'static str {
        match self {
            Reason::MemoryLimit => "the memory limit is reached; send again later",
            Reason::JournalFull => "the journal is full; send again later",
            Reason::JournalFailed => "the journal cannot be written; send again later",
            Reason::ShuttingDown => "the collector is shutting down; send again later",
            Reason::TooBusy => "too many requests are in progress; send again later",
            Reason::TooLarge => "the request is larger than the limit",
            Reason::Malformed => "the request does not decode",
            Reason::BadId => "an item has no id or an id of the wrong length",
            Reason::BadItem => "an item is invalid",
            Reason::NoPipeline => "no pipeline takes this signal from this receiver",
            Reason::Unauthorized => "the request carries no valid token",
            Reason::BackendUnavailable => "the backend is not reachable",
            Reason::BackendUnauthorized => "the backend does not accept our credentials",
            Reason::BackendRejected => "the backend rejected it",
            Reason::Unsupported => "the exporter does not take this signal",
            Reason::RetriesExhausted => "max_elapsed_time passed without success",
            Reason::QueueFull => "the exporter's queue_size is reached",
            Reason::SkippedOldest => "the journal was full and the oldest records were given up",
            Reason::UnreadableRecord => "a journal record cannot be read",
            Reason::Filtered => "a processor dropped it, as configured",
            Reason::NotSampled => "it was not in the share that is kept",
            Reason::StatementFailed => "a statement of a processor failed on it",
            Reason::MetadataLimit => "more different values of metadata_keys than metadata_cardinality_limit",
            Reason::OutOfOrder => "it is not later than the data point before",
            Reason::StreamLimit => "there is no room for one more stream of data points",
            Reason::FirstOfStream => "it is what the next data point is compared with",
            Reason::Incompatible => "its buckets are not those of the data point before",
            Reason::NoValue => "the data point has no value that can be counted",
            Reason::Lost => "the answer was lost inside the collector; send again",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
