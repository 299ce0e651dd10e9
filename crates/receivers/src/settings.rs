//! Why: what every receiver's settings become when the process starts is one contract, so that a new receiver is its own folder and one line in the
//! table of the program.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use net::Doors;
use pipeline::{BoxFuture, Intake};
use tokio::sync::watch;

/// Why a receiver cannot be mounted, in words for whoever wrote the configuration.
pub type MountError = Box<dyn Error + Send + Sync>;

/// What a receiver mended in what it took, beside what the ledger counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Texts that were not UTF-8 and had their bad bytes replaced.
    pub repaired_text: AtomicU64,
    /// Ids of the wrong length removed from items that are whole without them.
    pub repaired_ids: AtomicU64,
    /// Requests that were legal but not canonical, and were encoded anew.
    pub rewritten: AtomicU64,
}

/// Becomes `true` when the receiver is to take nothing new and come to an end.
pub type Stop = watch::Receiver<bool>;

/// What a receiver does by itself (scraping, reading files) from when the doors are open until it is told to stop. What it has pushed by then is the
/// pipeline's; what it has not it reads again after the next start.
pub type Work = Box<dyn FnOnce(Stop) -> BoxFuture<'static, ()> + Send>;

/// What a receiver left behind when it was mounted.
#[derive(Default)]
pub struct Mounted {
    pub counters: Arc<Counters>,
    /// What the operator should hear about the configuration.
    pub warnings: Vec<String>,
    /// What it cannot keep over a restart, if it was not told where to (`remember_in`); worth a warning where that is not for want of asking.
    pub forgets: Option<String>,
    pub work: Option<Work>,
}

/// Settings that have been read and checked.
pub trait Settings: Send {
    /// Called before `mount` where there is a folder, beside the journal's segments, for what a receiver must know after a restart, such as positions in
    /// what it reads. Not called where nothing is kept. The receiver's own file there is named after it.
    fn remember_in(&mut self, directory: &Path) {
        let _ = directory;
    }

    /// Mounts the receiver's routes on the doors, which open later, all at once.
    fn mount(self: Box<Self>, intake: Intake, doors: &mut Doors) -> Result<Mounted, MountError>;
}
