//! Changed copies of valid inputs.

use fastrand::Rng;

/// What parsers stumble over.
const TOKENS: [&str; 33] = [
    "null",
    "true",
    "{}",
    "[]",
    "[[[[[[[[",
    "{\"a\":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "\u{0}",
    ",",
    ":",
    "-1",
    "1e999",
    "18446744073709551616",
    "9999-12-31T23:59:59Z",
    "-009999-01-02T01:59:59Z",
    "i-",
    "~",
    "&a *a",
    "\n  - ",
    "\t",
    "<member>",
    "</member>",
    "<a/>",
    "&#0;",
    "&a;",
    "<![CDATA[",
    "<!--",
    "%",
    "&limit=",
];

/// Longer inputs are cut.
const LONGEST: usize = 64 << 10;

/// Makes inputs of a corpus, always the same ones of a seed.
pub struct Mutator<'a> {
    random: Rng,
    corpus: &'a [String],
}

impl<'a> Mutator<'a> {
    pub fn new(seed: u64, corpus: &'a [String]) -> Self {
        Self { random: Rng::with_seed(seed), corpus }
    }

    /// One of the corpus, with one to four changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.one().to_vec();
        for _ in 0..self.random.usize(1..=4) {
            self.change(&mut input);
            input.truncate(LONGEST);
        }
        input
    }

    fn one(&mut self) -> &'a [u8] {
        self.corpus[self.random.usize(..self.corpus.len())].as_bytes()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.random.usize(..=length);
        let most = (length - start).min(32);
        start..start + self.random.usize(..=most)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        match self.random.u8(..7) {
            0 => input.truncate(range.start),
            1 => drop(input.drain(range)),
            2 => {
                let copy = input[range.clone()].to_vec();
                drop(input.splice(range.start..range.start, copy));
            }
            3 => {
                let byte = self.random.u8(..);
                if let Some(place) = input.get_mut(range.start) {
                    *place = byte;
                }
            }
            4 => {
                let other = self.one();
                let from = self.range(other.len());
                drop(input.splice(range, other[from].iter().copied()));
            }
            5 => {
                if let Some(place) = input.get_mut(range.start) {
                    *place = if place.is_ascii_digit() { b'0' + self.random.u8(..10) } else { *place ^ 0x20 };
                }
            }
            _ => {
                let token = TOKENS[self.random.usize(..TOKENS.len())];
                drop(input.splice(range, token.bytes()));
            }
        }
    }
}
