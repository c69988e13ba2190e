//! Least and greatest values, as indexes and statistics tell them.

/// Bytes of a text in an index; of a longer one a part stands for the whole.
const TEXT_BYTES_MAX: usize = 64;

/// Least and greatest of what was added.
pub(super) struct Least<T>(pub(super) Option<(T, T)>);

impl<T> Default for Least<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + Ord> Least<T> {
    #[inline]
    pub(super) fn add(&mut self, value: T) {
        self.0 = Some(match self.0 {
            None => (value, value),
            Some((least, greatest)) => (least.min(value), greatest.max(value)),
        });
    }

    pub(super) fn join(&mut self, other: &Self) {
        if let Some((least, greatest)) = other.0 {
            self.add(least);
            self.add(greatest);
        }
    }
}

/// A text that is not above this one, and short.
pub(super) fn cut_least(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or_default()
}

/// A text that is not below this one, and short unless there is none.
pub(super) fn cut_greatest(text: &str) -> String {
    let cut = cut_least(text);
    if cut.len() == text.len() {
        return text.to_owned();
    }
    // The last character that has a next one is replaced by it, and what is behind it is left out.
    for (at, character) in cut.char_indices().rev() {
        let next = (character..=char::MAX).nth(1);
        if let Some(next) = next {
            let mut raised = cut.get(..at).unwrap_or_default().to_owned();
            raised.push(next);
            return raised;
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_cannot_be_raised_stays_whole() {
        let most = char::MAX.to_string().repeat(40);
        assert_eq!(cut_greatest(&most), most);
        let raised = cut_greatest(&format!("{}{most}", "a".repeat(8)));
        assert_eq!(raised, format!("{}b", "a".repeat(7)));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn short_bounds_hold_the_text_between_them(text in "\\PC{0,100}") {
            prop_assert!(cut_least(&text) <= text.as_str());
            let greatest = cut_greatest(&text);
            prop_assert!(greatest.as_str() >= text.as_str());
            prop_assert!(greatest.len() <= TEXT_BYTES_MAX + 4);
        }
    }
}
