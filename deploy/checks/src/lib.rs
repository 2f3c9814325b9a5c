//! Checks of the repository itself. They read files as text and run nothing.
//!
//! Reading order: [`files`] (which files there are), [`documents`] (links in Markdown), [`terms`] (the vocabulary of
//! `deploy/docs/terms.txt`), [`imports`] (the module graph of a crate and its cycles). The tests apply them to this
//! repository. [`examples`] (commands in a document and the output that it shows) are executed by an end-to-end test.

pub mod documents;
pub mod examples;
pub mod files;
pub mod imports;
pub mod terms;
