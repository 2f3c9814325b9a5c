//! Links in Markdown documents.

use std::fs;
use std::io;
use std::path::Path;

/// The targets of all links and images in a document: `[text](target)`. Fenced code is skipped.
#[must_use]
pub fn links(markdown: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in markdown.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for (_, rest) in line.match_indices("](").map(|(at, found)| line.split_at(at + found.len())) {
            links.extend(rest.split_once(')').map(|(target, _)| target));
        }
    }
    links
}

/// The anchors of a document's headings, in the form that code hosts generate.
#[must_use]
pub fn anchors(markdown: &str) -> Vec<String> {
    let mut in_code = false;
    let headings = markdown.lines().filter(|line| {
        in_code ^= line.trim_start().starts_with("```");
        !in_code && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars().filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            other if other.is_alphanumeric() => Some(other.to_ascii_lowercase()),
            _ => None,
        });
        kept.collect()
    };
    headings.map(anchor).collect()
}

/// Why a link within the repository leads nowhere; `None` for one that is fine or leads to another site.
///
/// # Errors
/// When the document that the link names cannot be read.
pub fn fault_of_link(document: &Path, text: &str, link: &str) -> io::Result<Option<String>> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = document.parent().unwrap_or(Path::new(".")).join(path);
    if !path.is_empty() && !target.exists() {
        return Ok(Some(format!("{link}: no such file")));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    let named = if path.is_empty() { text.to_owned() } else { fs::read_to_string(&target)? };
    let exists = anchors(&named).iter().any(|existing| existing == anchor);
    Ok((!exists).then(|| format!("{link}: no such heading")))
}
