//! Data flows one way: a module uses only modules before it, and inside a module no two files need each other.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod modules;

use modules::{Crate, Module};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ORDER: &[&[&str]] = &[
    &["bitmap", "error", "rng", "system"],
    &["kernels"],
    &["linalg", "nn", "pixels"],
    &["optim"],
    &["forms", "size"],
    &["augment"],
    &["config"],
    &["cache", "data", "hub"],
    &["backbone"],
    &["strategy", "features", "text"],
    &["metrics"],
    &["probe", "tsne"],
    &["model"],
    &["train"],
    &["export"],
    &["report"],
    &["ladder"],
    &["experiment"],
    &["commands"],
];

/// Files that need each other, and why they may. Files that part leave this list.
const CYCLES: &[(&[&str], &str)] = &[];

/// Lines of a file, at most.
const LONGEST: usize = 400;
/// Files that are longer. A file that was cut leaves this list.
const LONG: &[&str] = &[];

/// Lines of all of `src/commands` but files of tests, at most: commands say what they take, call, and print.
const COMMANDS: usize = 3000;

/// By file, the files it needs, each with a place where it does.
type Needs = BTreeMap<String, BTreeMap<String, String>>;

/// The source of the core, and that of the program, which passes the core's modules on under their names.
fn source() -> [PathBuf; 2] {
    ["core/src", "src"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

fn level(module: &str) -> usize {
    ORDER.iter().position(|level| level.contains(&module)).unwrap_or_else(|| panic!("{module} has no place in ORDER"))
}

/// A file's name below the folder of its crate, with `/` between folders on every system.
fn name(file: &Path) -> String {
    let relative = source().iter().find_map(|folder| file.strip_prefix(folder).ok()).unwrap();
    relative.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("/")
}

/// Every use of something in the crate: who, what by its path from the root, where it is defined, and the use.
fn uses(modules: &Crate) -> Vec<(&Module, Vec<String>, &Module, &modules::Use)> {
    let mut found = Vec::new();
    for module in modules.modules() {
        for used in &module.uses {
            if let Some(path) = modules.absolute(module, &used.segments)
                && let Some(definition) = modules.definition(&path)
            {
                found.push((module, path, definition, used));
            }
        }
    }
    found
}

#[test]
fn modules_use_only_what_comes_before_them() {
    let modules = Crate::read(&source());
    let (mut checked, mut upward) = (0, Vec::new());
    // What a module is named by counts, not where another one passes it on from.
    for (module, path, _, used) in uses(&modules) {
        let (Some(own), Some(other)) = (module.path.first(), path.first()) else { continue };
        if own == other {
            continue;
        }
        checked += 1;
        if level(other) > level(own) || (level(other) == level(own) && level(own) > 0) {
            upward.push(format!("{}:{} uses {}", name(&module.file), used.line, path.join("::")));
        }
    }
    assert!(checked > 1000, "only {checked} uses were found");
    assert!(upward.is_empty(), "what comes later:\n{}", upward.join("\n"));
}

#[test]
fn no_two_files_of_a_module_need_each_other() {
    let modules = Crate::read(&source());
    let mut needs: Needs = BTreeMap::new();
    for (module, path, definition, used) in uses(&modules) {
        // What a folder shares and its registry stand in the folder's head, which calls the files below: they are one.
        let related = definition.path.starts_with(&module.path) || module.path.starts_with(&definition.path);
        if used.test || related || module.path.first() != definition.path.first() {
            continue;
        }
        let place = format!("line {} uses {}", used.line, path.join("::"));
        needs.entry(name(&module.file)).or_default().entry(name(&definition.file)).or_insert(place);
    }
    assert!(needs.len() > 100, "only {} files need others", needs.len());
    let found = cycles(&needs);
    let named: Vec<BTreeSet<String>> =
        CYCLES.iter().map(|(files, _)| files.iter().map(|&file| file.to_owned()).collect()).collect();
    for cycle in found.iter().filter(|cycle| !named.contains(cycle)) {
        for file in cycle {
            for (other, place) in needs[file].iter().filter(|(other, _)| cycle.contains(*other)) {
                eprintln!("{file} needs {other}: {place}");
            }
        }
    }
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), named.into_iter().collect(), "left found, right named");
}

/// Groups of files that can all be reached from each other.
fn cycles(needs: &Needs) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let (mut found, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(
                needs.get(file).into_iter().flat_map(BTreeMap::keys).filter(|next| found.insert((*next).clone())),
            );
        }
        found
    };
    let reach: BTreeMap<&String, BTreeSet<String>> = needs.keys().map(|file| (file, reached(file))).collect();
    let group = |file: &String| {
        reach[file].iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(file))).cloned().collect()
    };
    let groups: BTreeSet<BTreeSet<String>> =
        needs.keys().map(group).filter(|group: &BTreeSet<String>| group.len() > 1).collect();
    groups.into_iter().collect()
}

#[test]
fn files_are_short_and_commands_thin() {
    let modules = Crate::read(&source());
    let lines = |module: &Module| fs::read_to_string(&module.file).unwrap().lines().count();
    // Of the modules in a file the outermost counts, which comes last.
    let files: BTreeMap<String, (usize, bool)> =
        modules.modules().map(|module| (name(&module.file), (lines(module), module.test))).rev().collect();
    let long: Vec<&str> =
        files.iter().filter(|(_, (lines, _))| *lines > LONGEST).map(|(name, _)| name.as_str()).collect();
    assert_eq!(long, LONG, "left found, right named");
    let commands = files.iter().filter(|(name, (_, test))| name.starts_with("commands/") && !test);
    let lines: usize = commands.map(|(_, (lines, _))| lines).sum();
    assert!(lines <= COMMANDS, "src/commands has {lines} lines");
}

#[test]
fn paths_reach_messages_in_one_way() {
    let modules = Crate::read(&source());
    // Of the modules in a file the outermost comes last.
    let files: BTreeMap<&Path, bool> =
        modules.modules().map(|module| (module.file.as_path(), module.test)).rev().collect();
    let mut raw = Vec::new();
    for (file, _) in files.into_iter().filter(|(_, test)| !test) {
        let text = fs::read_to_string(file).unwrap();
        // Tests are the last in a file.
        let lines = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().lines().enumerate();
        raw.extend(
            lines.filter(|(_, line)| line.contains(".display()")).map(|(i, _)| format!("{}:{}", name(file), i + 1)),
        );
    }
    assert!(raw.is_empty(), "system::shown escapes what steers a terminal, `display` does not:\n{}", raw.join("\n"));
}

#[test]
fn every_form_of_use_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    write("lib.rs", "pub mod a;\npub mod b;\n");
    write("a.rs", "pub struct A; pub fn f() {} pub const C: u8 = 0; pub mod inner { pub struct I; }");
    write("b/mod.rs", "mod x;\nmod y;\npub use x::{X, make as built};\npub use y::*;\n");
    write(
        "b/x.rs",
        "use crate::{a::{self, A as B, inner}, b::Y};\n\
         pub(in crate::a) struct X(inner::I);\n\
         pub fn make() -> X { a::f(); vec![super::super::a::C]; X(crate::a::inner::I) }\n\
         #[cfg(test)] mod tests { use super::*; use super::super::built; fn t() { std::mem::drop(built()) } }\n",
    );
    write(
        "b/y.rs",
        "/// crate::a::f in words, and in a text:\npub struct Y(&'static str);\nconst T: &str = \"crate::a::f\";\n",
    );
    let modules = Crate::read(&[folder.path().to_owned()]);
    let mut found: Vec<String> = uses(&modules)
        .into_iter()
        .map(|(module, path, definition, used)| {
            let test = if used.test { " in tests" } else { "" };
            format!("{}: {} of {}{test}", module.path.join("::"), path.join("::"), definition.path.join("::"))
        })
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            "b: b::x::X of b::x", "b: b::x::make of b::x", "b: b::y of b::y", "b::x: a of a", "b::x: a::A of a",
            "b::x: a::C of a", "b::x: a::f of a", "b::x: a::inner of a::inner", "b::x: a::inner::I of a::inner",
            "b::x: b::Y of b::y", "b::x::tests: b::built of b::x in tests", "b::x::tests: b::x of b::x in tests",
        ]
    );
}

/// A newcomer follows them: whole paths anywhere, and in the table names of files after the folder that they lie in.
#[test]
fn every_path_in_contributing_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let top = ["src/", "core/", "tests/", "docs/", "benches/", "examples/", "configs/", "fuzz/", ".ci/"];
    let (mut seen, mut absent) = (0, Vec::new());
    for line in text.lines() {
        let mut folder = root.to_path_buf();
        for word in line.split('`').skip(1).step_by(2).filter(|word| !word.contains("NAME") && !word.contains(' ')) {
            let whole = top.iter().any(|top| word.starts_with(top));
            let is_source = Path::new(word).extension().is_some_and(|extension| extension == "rs");
            let part = line.starts_with('|') && (is_source || word.ends_with('/'));
            let path = if whole { root.join(word) } else { folder.join(word) };
            if whole {
                folder = if path.is_dir() { path.clone() } else { path.parent().unwrap().to_path_buf() };
            }
            if whole || part {
                seen += 1;
                let listed = word.contains('*') || path.exists();
                absent.extend((!listed).then(|| word.to_owned()));
            }
        }
    }
    assert!(absent.is_empty() && seen > 80, "{seen} paths, not there: {absent:?}");
}
