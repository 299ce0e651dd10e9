//! The allocator of the process, how long it keeps what was freed, and the size of the pages it lives on.
//!
//! Large buffers (a request inflated, rows being flushed, a row group being merged) come and go many times a second. By default mimalloc gives such
//! memory back to the system some ten seconds after it was freed, which made the resident size of a server that takes logs at full speed half again as
//! large as what it used.
//!
//! Huge pages are off. A heap of one megabyte spread over a few of them took six while the process was idle, and gives back only what is free for two
//! megabytes on end; the rates of a collector were the same without them. The feature `no_thp` of the allocator leaves them to the system's own setting,
//! and [`give_back_soon`] declines them where that says *always*.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: mi_option_t = 15;
/// Milliseconds; for large blocks mimalloc takes it ten times.
const PURGE_DELAY_MS: std::ffi::c_long = 10;
/// Who sets it in the environment means it.
const PURGE_DELAY_VARIABLE: &str = "MIMALLOC_PURGE_DELAY";

/// To be called once, first.
pub fn give_back_soon() {
    // A kernel without the option has no such pages either.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    if std::env::var_os(PURGE_DELAY_VARIABLE).is_none() {
        // SAFETY: the function writes one integer of mimalloc's table of options, where the index above lies within, and may be called at any time.
        unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
    }
}
