//! Quantities as Kubernetes writes them.

/// Which unit a quantity is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Whole units: bytes, pods, devices.
    One,
    /// Thousandths: CPU.
    Milli,
}

/// What becomes of a remainder that the unit cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Up: for what pods ask.
    Up,
    /// Down: for what nodes have.
    Down,
}

/// A quantity that is not of the form that Kubernetes allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity")]
pub struct BadQuantity(pub String);

/// Reads a quantity: `100m`, `1Gi`, `1e3`, `0.5`. What is too large becomes `i64::MAX`.
///
/// Format: staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go.
///
/// # Errors
/// If the text is not a quantity.
pub fn quantity(text: &str, unit: Unit, rounding: Rounding) -> Result<i64, BadQuantity> {
    exact(text, unit, rounding).ok_or_else(|| BadQuantity(text.to_owned()))
}

fn exact(text: &str, unit: Unit, rounding: Rounding) -> Option<i64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let (binary, mut decimal): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    if unit == Unit::Milli {
        decimal = decimal.saturating_add(3);
    }
    decimal = decimal.saturating_sub(i32::try_from(fraction.len()).ok()?);

    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let too_large = if negative { i64::MIN } else { i64::MAX };
    // The value is digits * 10^decimal * 2^binary. 20 digits are more than an i64 holds, and times 2^60
    // they still fit an i128; the others can only round.
    let keep = digits.len().min(20);
    let dropped = digits[keep..].bytes().any(|b| b != b'0');
    decimal = decimal.saturating_add(i32::try_from(digits.len() - keep).ok()?);
    let value = digits[..keep].parse::<i128>().ok()? << binary;
    let power = 10i128.checked_pow(decimal.unsigned_abs());
    let (value, remainder) = match (power, decimal < 0) {
        (Some(divisor), true) => (value / divisor, value % divisor),
        (None, true) => (0, value),
        (Some(factor), false) => match value.checked_mul(factor) {
            Some(product) => (product, 0),
            None => return Some(too_large),
        },
        (None, false) => return Some(too_large),
    };
    let away_from_zero = (rounding == Rounding::Up) != negative;
    let value = value + i128::from(away_from_zero && (remainder != 0 || dropped));
    Some(i64::try_from(if negative { -value } else { value }).unwrap_or(too_large))
}
