//! Indented text, and names in the two notations.

/// Lines of Rust, indented by the braces they contain.
#[derive(Default)]
pub(crate) struct Text {
    text: String,
    depth: usize,
}

impl Text {
    /// Appends one line. A line that starts with a closing bracket is moved out, what follows an opening one is moved in.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if line.starts_with(['}', ')', ']']) {
            self.depth -= 1;
        }
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("    ", self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
        if line.ends_with(['{', '(', '[']) {
            self.depth += 1;
        }
    }

    pub(crate) fn lines<const N: usize>(&mut self, lines: [&str; N]) {
        lines.into_iter().for_each(|line| self.line(line));
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// `headerNslots` to `header_nslots`.
pub(crate) fn snake(camel: &str) -> String {
    let mut out = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// `INVALID_PARAMS` to `InvalidParams`.
pub(crate) fn pascal(upper: &str) -> String {
    let mut out = String::new();
    for word in upper.split('_') {
        let (first, rest) = word.split_at(word.len().min(1));
        out.push_str(first);
        out.push_str(&rest.to_ascii_lowercase());
    }
    out
}
