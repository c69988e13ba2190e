//! The house rules that run: what the folder promises a reader, checked on the committed files.
//!
//! Each rule is a function from text to findings, a test that holds the tree to it, and a test that
//! feeds it a bad snippet and sees it fail. A finding names the place and says what to do.

#[cfg(test)]
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[cfg(test)]
#[path = "tidy/documents.rs"]
mod documents;
#[cfg(test)]
#[path = "tidy/fences.rs"]
mod fences;
#[cfg(test)]
#[path = "tidy/imports.rs"]
mod imports;
#[cfg(test)]
#[path = "tidy/shape.rs"]
mod shape;
#[cfg(test)]
#[path = "tidy/source.rs"]
mod source;
#[cfg(test)]
#[path = "tidy/words.rs"]
mod words;
