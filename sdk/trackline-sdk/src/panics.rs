//! Panics as ERROR logs with their stack, in the span in which they happened, and as JSON like everything else on
//! stdout.

use std::any::Any;
use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use crate::logs::error_span::names_functions;
use crate::telemetry::{Location, Telemetry};

thread_local! {
    /// Whether the hook has logged the panic that is unwinding on this thread.
    static LOGGED: Cell<bool> = const { Cell::new(false) };
}

/// How long a process that is about to abort waits for its last telemetry.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// `error.type` of a panic.
pub const PANIC: &str = "panic";

/// Logs panics from now on. Where no lines are written, the hook that was there before still prints its message, since
/// stderr is then the only place where someone looks.
pub(crate) fn install(telemetry: &Telemetry) {
    let before = if telemetry.writes_lines() {
        None
    } else {
        Some(std::panic::take_hook())
    };
    std::panic::set_hook(Box::new(move |info| {
        if let Some(before) = &before {
            before(info);
        }
        let message = text(info.payload());
        // The location lives as long as the panic's info, the entry longer; panics are rare enough to copy it.
        let (path, line) = info
            .location()
            .map_or((String::new(), 0), |at| (at.file().to_owned(), at.line()));
        let stack = stack(&path, line, &Backtrace::force_capture().to_string());
        log(Telemetry::global(), &message, path, line, Some(stack));
        LOGGED.set(true);
        if cfg!(panic = "abort") {
            // Nothing after this will run.
            Telemetry::global().flush(LAST_WORDS);
        }
    }));
}

/// Lines of a stack in which the machinery of panicking is looked for: it takes about twenty.
const MACHINERY_LINES: usize = 60;

/// Where it panicked, and the calls that led there if their names are known.
fn stack(path: &str, line: u32, trace: &str) -> String {
    let calls = below_panic(trace);
    if names_functions(calls) {
        format!("at {path}:{line}\n{calls}")
    } else {
        format!("at {path}:{line}")
    }
}

/// The stack from the frame that panicked on: nobody wants to read how a panic is raised before where.
fn below_panic(stack: &str) -> &str {
    let (mut at, mut from) = (0, 0);
    let mut after_machinery = false;
    for line in stack.split_inclusive('\n').take(MACHINERY_LINES) {
        let is_frame = line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        if is_frame && std::mem::take(&mut after_machinery) {
            from = at;
        }
        after_machinery |= is_frame && (line.contains("core::panicking::") || line.contains("std::panicking::"));
        at += line.len();
    }
    &stack[from..]
}

/// Makes sure that a caught panic is in the logs of `telemetry`; call it in the context of its span. Returns its message.
pub fn caught(telemetry: &Telemetry, payload: &(dyn Any + Send)) -> String {
    let message = text(payload);
    if !LOGGED.replace(false) {
        log(telemetry, &message, String::new(), 0, None);
    }
    message
}

fn log(telemetry: &Telemetry, message: &str, path: String, line: u32, stack: Option<String>) {
    let mut fields: crate::logs::Fields = vec![
        (Cow::Borrowed("error.type"), PANIC.into()),
        (Cow::Borrowed("error.message"), message.to_owned().into()),
        (Cow::Borrowed("exception.class"), PANIC.into()),
        (Cow::Borrowed("exception.message"), message.to_owned().into()),
    ];
    if line > 0 {
        fields.push((Cow::Borrowed("exception.file"), path.into()));
        fields.push((Cow::Borrowed("exception.line"), u64::from(line).into()));
    }
    if let Some(stack) = stack {
        fields.push((Cow::Borrowed("exception.stack_trace"), stack.into()));
    }
    let here = Location {
        logger: module_path!(),
        path: file!(),
        line: line!(),
    };
    telemetry.log_failure(&here, format!("panic: {message}"), fields);
}

fn text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_begins_where_it_panicked() {
        let stack = "   0: sdk::panics::install::{{closure}}\n             at src/panics.rs:1\n   1: std::panicking::panic_with_hook\n   \
                     2: __rustc::rust_begin_unwind\n   3: core::panicking::panic_fmt\n             at core/panicking.rs:80\n   \
                     4: app::handler\n             at src/main.rs:7\n";
        assert_eq!(
            below_panic(stack),
            "   4: app::handler\n             at src/main.rs:7\n"
        );
        assert_eq!(below_panic("disabled backtrace"), "disabled backtrace");
    }

    #[test]
    fn a_stripped_program_says_where_and_no_more() {
        let stripped = "   0: <unknown>\n   1: <unknown>\n";
        assert_eq!(stack("src/main.rs", 7, stripped), "at src/main.rs:7");
        let named = "   0: app::handler\n   1: <unknown>\n";
        assert_eq!(stack("src/main.rs", 7, named), format!("at src/main.rs:7\n{named}"));
    }
}
