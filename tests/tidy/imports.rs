//! Which file imports which, read from the paths that stand in the code.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The files of one crate by the path of their module.
struct Crate {
    name: &'static str,
    modules: BTreeMap<String, Module>,
}

struct Module {
    file: String,
    code: String,
    /// What `use` brings into it: the name, and the whole path.
    brought: BTreeMap<String, String>,
}

/// The folders of the crates, and the names by which others know them.
const CRATES: [(&str, &str); 3] = [
    ("crates/cloud/src/", "spot_guard_cloud"),
    ("crates/core/src/", "spot_guard_core"),
    ("src/", "spot_guard"),
];

/// The code without comments and strings; good enough to look for paths.
fn bare(code: &str) -> String {
    let line = |line: &str| {
        let line = line.split("//").next().unwrap_or_default();
        line.split('"').step_by(2).collect::<Vec<_>>().join(" ")
    };
    code.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The paths of a `use` tree, each with the name that it brings.
fn leaves(prefix: &str, tree: &str, found: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    let Some((head, inside)) = tree.split_once('{') else {
        let (path, name) =
            tree.split_once(" as ").unwrap_or((tree, tree.rsplit("::").next().unwrap_or(tree)));
        let path = format!("{prefix}{}", path.trim());
        let path = path.strip_suffix("::self").unwrap_or(&path).to_owned();
        let name = if name == "self" { path.rsplit("::").next().unwrap_or_default() } else { name.trim() };
        found.push((name.to_owned(), path.clone()));
        return;
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut from) = (0, 0);
    let prefix = format!("{prefix}{head}");
    for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[from..at].trim().is_empty() {
                    leaves(&prefix, &inside[from..at], found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// What the `use` lines of a file bring, but those for tests alone.
fn brought(code: &str) -> BTreeMap<String, String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts = rest[..at].rsplit('\n').next().unwrap_or_default().trim();
        let Some(end) = rest[at..].find(';') else { break };
        let for_tests = rest[..at].trim_end_matches(starts).trim_end().ends_with("#[cfg(test)]");
        if (starts.is_empty() || starts.starts_with("pub")) && !for_tests {
            leaves("", &rest[at + 4..at + end], &mut found);
        }
        rest = &rest[at + end..];
    }
    found.into_iter().collect()
}

fn crates(files: &[Source]) -> Vec<Crate> {
    let of = |(folder, name): (&str, &'static str)| {
        let own = files.iter().filter_map(|file| Some((file, file.path.strip_prefix(folder)?)));
        let own = own.filter(|(_, path)| *path != "main.rs");
        let modules = own.map(|(file, path)| {
            let path = path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            let path = if path == "lib" { String::new() } else { path };
            let code = bare(&file.code);
            let brought = brought(&code);
            (path, Module { file: file.path.clone(), code, brought })
        });
        Crate { name, modules: modules.collect() }
    };
    CRATES.map(of).into()
}

fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

impl Crate {
    /// The module in which the thing stands that a path names, as seen from a module of this crate. Paths
    /// that leave the crate give none.
    fn resolve(&self, from: &str, path: &str, depth: usize) -> Option<&str> {
        let mut parts = path.split("::").map(str::trim).peekable();
        let mut at = from.to_owned();
        let first = *parts.peek()?;
        match first {
            "crate" => at = String::new(),
            "self" | "super" => {}
            _ if self.modules.contains_key(&joined(from, first)) => {}
            _ => return None,
        }
        while let Some(part) = parts.next() {
            match part {
                "crate" | "self" => {}
                "super" => at = at.rsplit_once("::").map_or(String::new(), |(upper, _)| upper.to_owned()),
                _ if self.modules.contains_key(&joined(&at, part)) => at = joined(&at, part),
                _ => {
                    // A name that the module has from somewhere else stands there.
                    let held = self.modules.get(&at)?;
                    if let Some(source) = held.brought.get(part).filter(|_| depth < 8) {
                        let rest: Vec<&str> = parts.collect();
                        let whole = [source.as_str()].into_iter().chain(rest).collect::<Vec<_>>().join("::");
                        return self.resolve(&at, &whole, depth + 1);
                    }
                    break;
                }
            }
        }
        self.modules.get_key_value(&at).map(|(path, _)| path.as_str())
    }

    /// The modules that a module imports.
    fn imports(&self, from: &str) -> BTreeSet<&str> {
        let module = &self.modules[from];
        let mut found: BTreeSet<&str> =
            module.brought.values().filter_map(|path| self.resolve(from, path, 0)).collect();
        // Paths in the middle of the code.
        for line in module.code.lines().filter(|line| !line.trim_start().starts_with("use ")) {
            for word in line.split(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter))) {
                let word = word.trim_matches(':');
                if word.contains("::") {
                    found.extend(self.resolve(from, word, 0));
                }
            }
        }
        found.remove(from);
        found
    }

    /// The same between the modules at the top of the crate, with all that is below them.
    fn rooms(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        fn room(module: &str) -> &str {
            module.split("::").next().unwrap_or_default()
        }
        let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for module in self.modules.keys() {
            let own = room(module);
            let imports = self.imports(module).into_iter().map(room).filter(|other| *other != own);
            rooms.entry(own).or_default().extend(imports);
        }
        rooms
    }

    fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        self.modules.keys().map(|module| (module.as_str(), self.imports(module))).collect()
    }
}

/// What can be reached from a module.
fn reached<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        open.extend(graph[module].iter().filter(|next| found.insert(**next)));
    }
    found
}

/// What imports each other, circle by circle: files, and the top modules with all that is below them.
pub fn circles(files: &[Source]) -> Vec<Vec<String>> {
    let mut found = BTreeSet::new();
    for held in crates(files) {
        found.extend(circles_of(&held.graph(), |module| held.modules[module].file.clone()));
        found.extend(circles_of(&held.rooms(), |room| format!("{}::{room}", held.name)));
    }
    found.into_iter().collect()
}

fn circles_of(
    graph: &BTreeMap<&str, BTreeSet<&str>>,
    name: impl Fn(&str) -> String,
) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|module| (*module, reached(graph, module))).collect();
    let circle = |(module, own): (&&str, &BTreeSet<&str>)| {
        let back: BTreeSet<String> =
            own.iter().filter(|other| reach[*other].contains(module)).map(|other| name(other)).collect();
        (!back.is_empty()).then(|| back.into_iter().collect())
    };
    reach.iter().filter_map(circle).collect()
}

/// The longest chain of imports between the top modules of each crate, from the top to the ground.
pub fn floors(files: &[Source]) -> Vec<(&'static str, Vec<String>)> {
    fn chain<'a>(
        graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        module: &'a str,
        known: &mut BTreeMap<&'a str, Vec<&'a str>>,
        above: &mut Vec<&'a str>,
    ) -> Vec<&'a str> {
        if let Some(found) = known.get(module) {
            return found.clone();
        }
        if above.contains(&module) {
            return Vec::new();
        }
        above.push(module);
        let below = graph[module].iter().map(|next| chain(graph, next, known, above));
        let longest = below.max_by_key(Vec::len).unwrap_or_default();
        above.pop();
        let whole: Vec<&str> = [module].into_iter().chain(longest).collect();
        known.insert(module, whole.clone());
        whole
    }
    let of = |held: Crate| {
        let graph = held.rooms();
        let mut known = BTreeMap::new();
        let all = graph.keys().map(|module| chain(&graph, module, &mut known, &mut Vec::new()));
        let longest = all.max_by_key(Vec::len).unwrap_or_default();
        (held.name, longest.into_iter().map(str::to_owned).collect())
    };
    crates(files).into_iter().map(of).collect()
}
