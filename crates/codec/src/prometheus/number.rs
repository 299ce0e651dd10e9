//! Why: Prometheus compares bucket bounds as text, so a number has one spelling: that of Go's shortest form, in OpenMetrics with `.0` where it would
//! look like an integer (`le="1.0"`, as Prometheus 3 writes it whichever way it came in).

use std::fmt::Write;

/// Below this, integers are written digit by digit; from here on Go turns to exponents.
const PLAIN_INTEGERS: f64 = 1e6;

/// Appends a double as the text format 0.0.4 has it: `3`, `0.5`, `1e+06`, `NaN`, `+Inf`.
pub fn plain(out: &mut String, value: f64) {
    spell(out, value, "");
}

/// Appends a double as OpenMetrics and the labels `le` and `quantile` have it: `3.0`, `0.5`, `1e+06`.
pub fn canonical(out: &mut String, value: f64) {
    spell(out, value, ".0");
}

fn spell(out: &mut String, value: f64, whole: &str) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if value.fract() == 0.0 && value.abs() < PLAIN_INTEGERS && (value != 0.0 || value.is_sign_positive()) {
        integer(out, value as i64);
        out.push_str(whole);
    } else {
        shortest(out, value, whole);
    }
}

/// Appends an integer.
pub fn integer(out: &mut String, value: i64) {
    // Twenty characters hold every 64-bit integer.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push('-');
    }
    for digit in &digits[at..] {
        out.push(char::from(*digit));
    }
}

/// The digits of Rust's shortest form in the arrangement of Go's `%g`.
fn shortest(out: &mut String, value: f64, whole: &str) {
    let start = out.len();
    // Writing to a string does not fail.
    let _ = write!(out, "{value:e}");
    let Some(at) = out[start..].rfind('e') else { return };
    let exponent: i32 = out[start + at + 1..].parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        out.truncate(start);
        let _ = write!(out, "{value}");
        if !out[start..].contains('.') {
            out.push_str(whole);
        }
    } else {
        out.truncate(start + at);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_spells_them() {
        for (value, in_text, canonically) in [
            (0.0, "0", "0.0"),
            (-0.0, "-0", "-0.0"),
            (1.0, "1", "1.0"),
            (-17.0, "-17", "-17.0"),
            (0.005, "0.005", "0.005"),
            (2.5, "2.5", "2.5"),
            (999_999.0, "999999", "999999.0"),
            (1e6, "1e+06", "1e+06"),
            (123_456_789.0, "1.23456789e+08", "1.23456789e+08"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1e-05"),
            (1e300, "1e+300", "1e+300"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308", "2.2250738585072014e-308"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            let (mut text, mut open) = (String::new(), String::new());
            plain(&mut text, value);
            canonical(&mut open, value);
            assert_eq!((text.as_str(), open.as_str()), (in_text, canonically));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            let mut text = String::new();
            canonical(&mut text, value);
            let read: f64 = text.parse().expect("a number");
            proptest::prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }

        #[test]
        fn integers(value: i64) {
            let mut text = String::new();
            integer(&mut text, value);
            proptest::prop_assert_eq!(text, value.to_string());
        }
    }
}
