//! What a grammar makes of the bytes so far, and the one way in which all of them read numbers.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

/// The three things that bytes can be to a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T, E> {
    /// The beginning of something: more bytes are needed.
    Incomplete,
    /// A value.
    Complete {
        /// The value.
        value: T,
        /// How many bytes it took; what follows is the rest.
        consumed: usize,
    },
    /// Nothing that this grammar knows, whatever may follow.
    Malformed(E),
}

impl<T, E> Parsed<T, E> {
    /// A value that took `consumed` bytes.
    pub const fn complete(value: T, consumed: usize) -> Self {
        Self::Complete { value, consumed }
    }
}

/// A decimal number of ASCII digits and nothing else: no sign, no blank (`"+5".parse::<u64>()` succeeds). `None` also beyond 64 bits.
pub fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("007"), Some(7));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for text in [
            "",
            "+5",
            "-5",
            " 5",
            "5 ",
            "0x5",
            "5.0",
            "18446744073709551616",
            "٣",
        ] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}
