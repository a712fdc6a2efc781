//! The words that are the wallet (BIP39, English).

use std::fmt;

use bdk_wallet::bip39::{self, Language, Mnemonic};
use bitcoin::key::rand::{RngCore as _, rngs::OsRng};
use zeroize::{Zeroize as _, Zeroizing};

/// Longest text that is looked at: 24 words of 8 letters need 215 bytes.
const MAX_TEXT: usize = 4_096;
/// How many near words an error names.
const NEAR: usize = 3;

/// A BIP39 seed in words. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Words(Mnemonic);

/// Why a text is no seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Seeds have 12, 15, 18, 21 or 24 words.
    #[error("there are {found} words, and a seed has 12, 15, 18, 21 or 24: look for one that is missing or written twice")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// A word that is not in BIP39's English list.
    #[error("word {position} is \"{word}\", which is not in the list of seed words{}", suggestion(.near))]
    Unknown {
        /// Which one, from 1.
        position: usize,
        /// The word.
        word: String,
        /// Words of the list that look like it, the nearest first.
        near: Vec<String>,
    },
    /// All words are known and do not belong together.
    #[error("all {count} words are in the list, but their checksum is wrong: one of them is another word, or two are in the wrong order")]
    Checksum {
        /// How many there are.
        count: usize,
    },
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() { ": look at the paper again".to_owned() } else { format!(": is it {}?", near.join(", or ")) }
}

impl Words {
    /// Twelve new words, 128 bits of the system's randomness.
    pub fn random() -> Words {
        Words::of_entropy::<16>()
    }

    /// Twenty-four new words, 256 bits of the system's randomness.
    pub fn random_24() -> Words {
        Words::of_entropy::<32>()
    }

    fn of_entropy<const BYTES: usize>() -> Words {
        let mut entropy = Zeroizing::new([0; BYTES]);
        loop {
            OsRng.fill_bytes(&mut *entropy);
            // Sixteen bytes always make twelve words, thirty-two twenty-four.
            if let Ok(words) = Mnemonic::from_entropy(&*entropy) {
                return Words(words);
            }
        }
    }

    /// Reads words, in any case and with any space or numbering of the form `1.` between them.
    pub fn parse(text: &str) -> Result<Words, WordsError> {
        let shortened: String = text.chars().take(MAX_TEXT).collect();
        let mut lowered = Zeroizing::new(shortened.to_lowercase());
        let list: Vec<&str> = lowered.split_whitespace().filter(|word| !is_number(word)).collect();
        if !matches!(list.len(), 12 | 15 | 18 | 21 | 24) {
            return Err(WordsError::Count { found: list.len() });
        }
        let joined = Zeroizing::new(list.join(" "));
        let parsed = Mnemonic::parse_in_normalized(Language::English, &joined).map_err(|why| match why {
            bip39::Error::UnknownWord(at) => {
                let word: String = list.get(at).copied().unwrap_or_default().chars().take(20).collect();
                WordsError::Unknown { position: at + 1, near: near(&word), word }
            }
            bip39::Error::BadWordCount(found) => WordsError::Count { found },
            _ => WordsError::Checksum { count: list.len() },
        });
        lowered.zeroize();
        parsed.map(Words)
    }

    /// The words with single spaces between them.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string())
    }

    /// The words one by one.
    pub fn list(&self) -> Vec<&'static str> {
        self.0.words().collect()
    }

    /// What keys are derived from.
    pub(super) fn seed(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_seed_normalized(""))
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets do not belong in logs.
        write!(f, "Words({})", self.0.word_count())
    }
}

fn is_number(word: &str) -> bool {
    let digits = word.trim_end_matches(['.', ':', ')']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Words of the list at most two mistakes away, the nearest first.
fn near(word: &str) -> Vec<String> {
    let mut all: Vec<(usize, &str)> =
        Language::English.word_list().iter().map(|known| (distance(word, known), *known)).filter(|(far, _)| *far <= 2).collect();
    // Of two as near, the one that begins alike is likelier: the first four letters are what tells seed words apart.
    all.sort_by_key(|(far, known)| (*far, !known.starts_with(word.get(..1).unwrap_or_default()), *known));
    all.into_iter().take(NEAR).map(|(_, known)| known.to_owned()).collect()
}

/// Letters to add, leave out, change, or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Where one of the two is used up, the rest of the other is what differs.
    let mut rows: Vec<Vec<usize>> = (0..=a.len()).map(|i| (i..=i + b.len()).collect()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const GOOD: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn words_come_back_however_they_were_typed() {
        let words = Words::parse(GOOD).unwrap();
        assert_eq!(words.text().as_str(), GOOD);
        let numbered: String = GOOD.split(' ').enumerate().map(|(at, word)| format!("{}. {}\n", at + 1, word.to_uppercase())).collect();
        assert_eq!(Words::parse(&numbered).unwrap(), words);
        assert_ne!(Words::random(), Words::random());
        assert_eq!(Words::random().list().len(), 12);
        assert_eq!(Words::random_24().list().len(), 24);
        assert_ne!(Words::random_24(), Words::random_24());
        for bytes in [16, 20, 24, 28, 32] {
            let text = Mnemonic::from_entropy(&vec![7; bytes]).unwrap().to_string();
            assert_eq!(Words::parse(&text).unwrap().text().as_str(), text);
        }
    }

    #[test]
    fn one_wrong_word_is_named_with_its_place_and_what_it_may_have_been() {
        let message = Words::parse(&GOOD.replace("sausage", "sausgae")).unwrap_err().to_string();
        assert_eq!(message, "word 6 is \"sausgae\", which is not in the list of seed words: is it sausage?");
        let message = Words::parse(&GOOD.replace("wave", "xyzzyq")).unwrap_err().to_string();
        assert_eq!(message, "word 5 is \"xyzzyq\", which is not in the list of seed words: look at the paper again");
    }

    #[test]
    fn a_word_of_the_list_in_the_wrong_place_is_told_from_one_that_is_not_in_it() {
        let swapped = "winner legal thank year wave sausage worth useful legal winner thank yellow";
        assert_eq!(Words::parse(swapped), Err(WordsError::Checksum { count: 12 }));
        assert_eq!(Words::parse(&GOOD.replace("yellow", "year")), Err(WordsError::Checksum { count: 12 }));
    }

    #[test]
    fn too_few_or_too_many_words_are_counted() {
        for (text, found) in [("", 0), ("legal winner", 2), (&*format!("{GOOD} legal"), 13)] {
            assert_eq!(Words::parse(text), Err(WordsError::Count { found }));
        }
        assert!(matches!(Words::parse(&"zoo ".repeat(100_000)), Err(WordsError::Count { .. })));
    }

    #[test]
    fn words_are_not_in_what_debug_shows() {
        assert_eq!(format!("{:?}", Words::parse(GOOD).unwrap()), "Words(12)");
    }
}
