//! Any text as a statement and as a condition, in every context: an answer, and a mistake's place lies in the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Signal;
use pipeline::ottl::check;
use pipeline::ottl::paths::Context;

fuzz_target!(|text: &str| {
    for context in Context::ALL {
        let mistakes = [
            check::statement(text, context).err(),
            check::condition(text, context).err(),
        ];
        for mistake in mistakes.into_iter().flatten() {
            assert!(mistake.at <= mistake.end && mistake.end <= text.len());
            assert!(mistake.column(text) <= text.chars().count() + 1);
        }
    }
    for signal in Signal::ALL {
        let _ = (check::infer(text, signal, true), check::infer(text, signal, false));
    }
});
