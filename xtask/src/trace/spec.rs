//! Reads rules and conformance cases out of a specification sheet.
//!
//! Three forms of a rule occur:
//!
//! ```text
//! | TP-107 | MUST | text |              a table row with the level in its own cell
//! | MQ-288 | AFFINITY (4) | u64 | ...   a table row without level: MUST, unless its text says otherwise
//! - **DH-001 MUST** text                a list item; lines indented under it belong to it
//! ```
//!
//! A list item may leave the level to its text (`- **MQ-001** The kernel MUST ...`). Then the strongest word counts,
//! and a text without such a word is a MUST, because everything with an id is normative.
//!
//! A case is a table row whose id has one of the sheet's own case prefixes, in one of two forms:
//!
//! ```text
//! | TC-001 | setup | outcome | TP-007, TP-008 |     the rules it shows in the last cell
//! | L-09 | setup and outcome [DH-021] |             the rules it shows in brackets, if any
//! | K-01..K-04 | points and outcome |               several cases at once
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// Id of a rule (`TP-107`) or of a conformance case (`TC-061`, `L-09`, `Q-1`). Ordered by prefix, then by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RuleId {
    prefix: String,
    number: u32,
    /// Digits it is written with.
    width: usize,
}

/// How binding a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Must,
    Should,
    May,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// Number of the chapter it stands in: `10.5`, `A`, `C.4`.
    pub(crate) section: String,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) id: RuleId,
    pub(crate) text: String,
    pub(crate) section: String,
    /// The rules this case shows.
    pub(crate) rules: Vec<RuleId>,
}

/// What a sheet holds, in the order of the sheet.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) cases: Vec<Case>,
    /// Number and title of every chapter.
    pub(crate) sections: Vec<(String, String)>,
    /// Ids of this sheet that its text mentions, defined or not.
    mentioned: BTreeSet<RuleId>,
    stated: StatedCounts,
}

/// Counts that a sheet states about itself in its head table.
#[derive(Debug, Default, PartialEq, Eq)]
struct StatedCounts {
    rules: Option<usize>,
    levels: Vec<(Level, usize)>,
    cases: Option<usize>,
}

impl Sheet {
    /// Reads a sheet whose rule ids begin with `rule_prefix` and whose case ids begin with one of `case_prefixes`.
    pub(crate) fn parse(markdown: &str, rule_prefix: &str, case_prefixes: &[String]) -> Self {
        let mut sheet = Self::default();
        let mut section = String::new();
        let mut fenced = false;
        let mut lines = markdown.lines().peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            let is_own = |id: &RuleId| id.prefix == rule_prefix || case_prefixes.contains(&id.prefix);
            sheet.mentioned.extend(RuleId::all_in(line).filter(is_own));
            if let Some((number, title)) = heading(line) {
                section.clone_from(&number);
                sheet.sections.push((number, title));
            } else if line.starts_with('|') {
                sheet.table_row(&cells(line), rule_prefix, case_prefixes, &section);
            } else if let Some((id, level, text)) = list_item(line, rule_prefix) {
                let mut text = text.to_owned();
                while let Some(more) = lines.next_if(|next| continues_item(next)) {
                    sheet.mentioned.extend(RuleId::all_in(more).filter(is_own));
                    text.push(' ');
                    text.push_str(more.trim());
                }
                let level = level.unwrap_or_else(|| Level::of_text(&text));
                sheet.rules.push(Rule { id, level, text, section: section.clone() });
            }
        }
        sheet
    }

    /// What does not add up: counts the sheet states, the counts the scope file pins, double and undefined ids.
    pub(crate) fn inconsistencies(&self, pinned_rules: usize, pinned_cases: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect = |what: &str, expected: usize, parsed: usize| {
            if expected != parsed {
                found.push(format!("{parsed} {what} parsed, but {expected} expected"));
            }
        };
        expect("rules (count pinned in conformance/areas.toml)", pinned_rules, self.rules.len());
        expect("cases (count pinned in conformance/areas.toml)", pinned_cases, self.cases.len());
        if let Some(stated) = self.stated.rules {
            expect("rules (count stated by the sheet)", stated, self.rules.len());
        }
        for (level, stated) in &self.stated.levels {
            let parsed = self.rules.iter().filter(|rule| rule.level == *level).count();
            expect(&format!("{level} rules (count stated by the sheet)"), *stated, parsed);
        }
        if let Some(stated) = self.stated.cases {
            expect("cases (count stated by the sheet)", stated, self.cases.len());
        }
        let mut defined = BTreeSet::new();
        for id in self.rules.iter().map(|rule| &rule.id).chain(self.cases.iter().map(|case| &case.id)) {
            if !defined.insert(id) {
                found.push(format!("{id} is defined twice"));
            }
        }
        for id in self.mentioned.iter().chain(self.cases.iter().flat_map(|case| &case.rules)) {
            if !defined.contains(id) {
                found
                    .push(format!("{id} is mentioned but not defined, or its definition was not understood"));
            }
        }
        found
    }

    /// Title of a section, empty when the sheet gives none.
    pub(crate) fn title(&self, section: &str) -> &str {
        self.sections.iter().find(|(number, _)| number == section).map_or("", |(_, title)| title)
    }

    fn table_row(&mut self, cells: &[String], rule_prefix: &str, case_prefixes: &[String], section: &str) {
        let [first, rest @ ..] = cells else { return };
        match (first.as_str(), rest) {
            ("Rules in this sheet", [count]) => {
                self.stated.rules = leading_number(count);
                self.stated.levels = stated_levels(count);
            }
            ("Conformance cases", [count]) => self.stated.cases = leading_number(count),
            _ => {}
        }
        if let Some(id) = RuleId::parse(first).filter(|id| id.prefix == rule_prefix) {
            let (level, text) = match rest {
                [level, text @ ..] if Level::parse(level).is_some() => {
                    (Level::parse(level), text.join(" | "))
                }
                _ => (None, rest.join(" | ")),
            };
            let level = level.unwrap_or_else(|| Level::of_text(&text));
            self.rules.push(Rule { id, level, text, section: section.to_owned() });
            return;
        }
        for id in RuleId::range(first).into_iter().filter(|id| case_prefixes.contains(&id.prefix)) {
            let (text, rules) = case_text(rest);
            self.cases.push(Case { id, text, section: section.to_owned(), rules });
        }
    }
}

/// The prefix of cases that have two digits behind two letters.
const SHORT: &str = "CT";

impl RuleId {
    /// Parses exactly one id: one to three capital letters, a hyphen, digits. Behind two or three letters stand three
    /// digits, or four from 1000 on, and `TP-7` and `TP-0107` are no ids; behind one letter one or two, as the sheet
    /// writes them; behind `CT` two.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (prefix, digits) = text.split_once('-')?;
        let is_id = prefix.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        let id = Self { prefix: prefix.to_owned(), number: digits.parse().ok()?, width: digits.len() };
        let is_written_so = match prefix.len() {
            1 => id.width <= 2,
            2 if prefix == SHORT => id.width == 2,
            2 | 3 => id.width == 3 || (id.width == 4 && id.number >= 1_000),
            _ => false,
        };
        (is_id && is_written_so).then_some(id)
    }

    /// `K-01` is itself, `K-01..K-04` are four.
    fn range(text: &str) -> Vec<Self> {
        let Some((first, last)) = text.split_once("..") else {
            return Self::parse(text).into_iter().collect();
        };
        match (Self::parse(first), Self::parse(last)) {
            (Some(first), Some(last)) if first.prefix == last.prefix && first.width == last.width => {
                (first.number..=last.number).map(|number| Self { number, ..first.clone() }).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Every id in a line of text.
    pub(crate) fn all_in(text: &str) -> impl Iterator<Item = Self> {
        text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'))
            .filter_map(Self::parse)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:0width$}", self.prefix, self.number, width = self.width)
    }
}

impl Serialize for RuleId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "MUST" => Some(Self::Must),
            "SHOULD" => Some(Self::Should),
            "MAY" => Some(Self::May),
            _ => None,
        }
    }

    /// The strongest level word in a text; MUST when there is none.
    fn of_text(text: &str) -> Self {
        text.split(|character: char| !character.is_ascii_alphabetic())
            .filter_map(Self::parse)
            .min()
            .unwrap_or(Self::Must)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

/// `## 10. Wire schema` gives (`10`, `Wire schema`), `### C.4 Commit` (`C.4`, `Commit`), `## Appendix A. Tools`
/// (`A`, `Tools`).
fn heading(line: &str) -> Option<(String, String)> {
    let text = line.strip_prefix("##")?.trim_start_matches('#').strip_prefix(' ')?;
    let text = text.strip_prefix("Appendix ").or_else(|| text.strip_prefix("Annex ")).unwrap_or(text);
    let (number, title) = text.split_once(' ').unwrap_or((text, ""));
    Some((number.trim_end_matches('.').to_owned(), title.to_owned()))
}

/// Cells of a table row; `\|` is part of a cell.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut characters = line.trim().trim_start_matches('|').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'|') => {
                characters.next();
                push_last(&mut cells, '|');
            }
            '|' => cells.push(String::new()),
            other => push_last(&mut cells, other),
        }
    }
    if cells.last().is_some_and(|last| last.trim().is_empty()) {
        cells.pop();
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// Text of a case and the rules it shows, from the cells behind its id.
fn case_text(cells: &[String]) -> (String, Vec<RuleId>) {
    if let [text @ .., rules] = cells
        && !text.is_empty()
        && rules.split(", ").next().and_then(RuleId::parse).is_some()
    {
        return (text.join(" => "), RuleId::all_in(rules).collect());
    }
    let text = cells.join(" => ");
    let in_brackets = text.split('[').skip(1).filter_map(|part| part.split_once(']'));
    let rules = in_brackets.flat_map(|(inside, _)| RuleId::all_in(inside)).collect();
    (text, rules)
}

fn push_last(cells: &mut [String], character: char) {
    if let Some(cell) = cells.last_mut() {
        cell.push(character);
    }
}

/// `- **DH-001 MUST** text` or `* **VX-001** text`.
fn list_item<'a>(line: &'a str, rule_prefix: &str) -> Option<(RuleId, Option<Level>, &'a str)> {
    let item = line.strip_prefix("- **").or_else(|| line.strip_prefix("* **"))?;
    let (head, text) = item.split_once("**")?;
    let (id, level) = match head.split_once(' ') {
        Some((id, level)) => (id, Level::parse(level)),
        None => (head, None),
    };
    let id = RuleId::parse(id).filter(|id| id.prefix == rule_prefix)?;
    Some((id, level, text.trim()))
}

fn continues_item(line: &str) -> bool {
    line.starts_with("  ") && !line.trim().is_empty()
}

fn leading_number(text: &str) -> Option<usize> {
    text.split(' ').next()?.parse().ok()
}

/// The levels of `493 numbered rules (437 MUST, 33 SHOULD, 23 MAY)`.
fn stated_levels(text: &str) -> Vec<(Level, usize)> {
    let Some((_, inside)) = text.split_once('(') else { return Vec::new() };
    inside
        .trim_end_matches(')')
        .split(", ")
        .filter_map(|part| part.split_once(' '))
        .filter_map(|(count, level)| Some((Level::parse(level)?, count.parse().ok()?)))
        .collect()
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
