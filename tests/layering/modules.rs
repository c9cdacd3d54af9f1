//! The crate's modules as its source says them, and where each path in them leads.
//!
//! Paths are read from tokens: declarations of use with all their braces, paths in code, types and macros alike. A name
//! that a module passes on (`pub use`) is followed to the file that defines it.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One path somewhere in a module.
#[derive(Debug)]
pub struct Use {
    /// As written, from `crate`, `super`, `self`, a name that was imported, or a module below.
    pub segments: Vec<String>,
    pub line: usize,
    /// In code that only tests compile.
    pub test: bool,
}

/// A module, in a file of its own or inside another's.
#[derive(Debug, Default)]
pub struct Module {
    pub path: Vec<String>,
    pub file: PathBuf,
    pub uses: Vec<Use>,
    /// Only tests compile it.
    pub test: bool,
    /// What `use` brings into its scope, by the name it has there.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Names that it defines.
    items: BTreeSet<String>,
}

/// All modules by their path below the crate.
pub struct Crate(BTreeMap<Vec<String>, Module>);

impl Crate {
    /// Follows the declarations of modules from the `lib.rs` of each folder; the last one is the crate's root.
    pub fn read(folders: &[PathBuf]) -> Self {
        let mut modules = Self(BTreeMap::new());
        for folder in folders {
            modules.read_file(Vec::new(), &folder.join("lib.rs"), false);
        }
        modules
    }

    pub fn modules(&self) -> impl DoubleEndedIterator<Item = &Module> {
        self.0.values()
    }

    fn read_file(&mut self, path: Vec<String>, file: &Path, test: bool) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read_module(path, file, tokens, test);
    }

    fn read_module(&mut self, path: Vec<String>, file: &Path, tokens: TokenStream, test: bool) {
        let mut module = Module { path, file: file.to_owned(), test, ..Module::default() };
        let mut below = Vec::new();
        module.walk(&tokens.into_iter().collect::<Vec<_>>(), test, &mut below);
        let path = module.path.clone();
        let other = self.0.insert(path.clone(), module);
        assert!(other.is_none() || path.is_empty(), "{} is a module of both crates", path.join("::"));
        for Below { name, body, test, at } in below {
            let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            match body {
                Some(tokens) => self.read_module(path, file, tokens, test),
                None => self.read_file(path, &at.unwrap_or_else(|| beside(file, &name)), test),
            }
        }
    }

    /// A path of `module` from the crate's root; none when it leads out of the crate.
    pub fn absolute(&self, module: &Module, segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        let own = module.path.as_slice();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([own, rest].concat()),
            "super" => {
                let supers = segments.iter().take_while(|segment| *segment == "super").count();
                Some([&own[..own.len().checked_sub(supers)?], &segments[supers..]].concat())
            }
            _ if self.0.contains_key(&[own, std::slice::from_ref(first)].concat()) => Some([own, segments].concat()),
            _ => {
                let import = module.imports.get(first).filter(|import| import[0] != *first)?;
                Some([self.absolute(module, import)?.as_slice(), rest].concat())
            }
        }
    }

    /// The module that defines what an absolute path names.
    pub fn definition(&self, path: &[String]) -> Option<&Module> {
        let depth = (0..=path.len()).rev().find(|&depth| self.0.contains_key(&path[..depth]))?;
        let module = &self.0[&path[..depth]];
        let Some(name) = path.get(depth).filter(|name| !module.items.contains(*name)) else { return Some(module) };
        if let Some(import) = module.imports.get(name) {
            let elsewhere = [self.absolute(module, import)?.as_slice(), &path[depth + 1..]].concat();
            return if elsewhere == path { Some(module) } else { self.definition(&elsewhere) };
        }
        let passed_on = module.globs.iter().filter_map(|glob| self.0.get(&self.absolute(module, glob)?));
        let defines = |other: &&Module| other.items.contains(name) || other.imports.contains_key(name);
        match passed_on.filter(|other| other.path != module.path).find(defines) {
            Some(other) => self.definition(&[other.path.as_slice(), &path[depth..]].concat()),
            None => Some(module),
        }
    }
}

/// A module that another one declares.
struct Below {
    name: String,
    body: Option<TokenStream>,
    test: bool,
    /// Where a `#[path]` puts it.
    at: Option<PathBuf>,
}

/// The file of a module that `file` declares.
fn beside(file: &Path, name: &str) -> PathBuf {
    let folder = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let folder = if matches!(stem, "mod" | "lib") { folder.to_owned() } else { folder.join(stem) };
    let flat = folder.join(format!("{name}.rs"));
    if flat.is_file() { flat } else { folder.join(name).join("mod.rs") }
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    if let Some(TokenTree::Ident(ident)) = token { Some(ident.to_string()) } else { None }
}

fn punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether `::` stands at `at`.
fn joined(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(colon)) if colon.as_char() == ':' && colon.spacing() == Spacing::Joint)
        && punct(tokens.get(at + 1), ':')
}

impl Module {
    fn walk(&mut self, tokens: &[TokenTree], test: bool, below: &mut Vec<Below>) {
        let (mut at, mut only_test, mut file) = (0, false, None);
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(group)) = tokens.get(at + 1)
                        && group.delimiter() == Delimiter::Bracket
                    {
                        let words: Vec<String> = group.stream().into_iter().map(|token| token.to_string()).collect();
                        only_test |= words[0] == "test" || words == ["cfg", "(test)"];
                        if words[0] == "path" {
                            file = Some(self.file.parent().unwrap().join(words[2].trim_matches('"')));
                        }
                        at += 1;
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    (only_test, file) = (false, None);
                }
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.walk(&inside, test || only_test, below);
                    if group.delimiter() == Delimiter::Brace {
                        (only_test, file) = (false, None);
                    }
                }
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    // `pub(in crate::nn)` uses nothing.
                    "pub" if matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) => at += 1,
                    "use" => {
                        let end = tokens[at..].iter().position(|token| punct(Some(token), ';'));
                        if let Some(length) = end {
                            self.declare(&tokens[at + 1..at + length], &[], test || only_test);
                            at += length - 1;
                        }
                    }
                    "mod" => {
                        let name = ident(tokens.get(at + 1)).unwrap();
                        let body = match tokens.get(at + 2) {
                            Some(TokenTree::Group(group)) => Some(group.stream()),
                            _ => None,
                        };
                        below.push(Below { name, body, test: test || only_test, at: file.take() });
                        only_test = false;
                        at += 2;
                    }
                    first => {
                        if matches!(first, "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union") {
                            self.items.extend(ident(tokens.get(at + 1)));
                        }
                        let mut segments = vec![first.to_owned()];
                        while joined(tokens, at + 1)
                            && let Some(next) = ident(tokens.get(at + 3))
                        {
                            segments.push(next);
                            at += 3;
                        }
                        if segments.len() > 1 {
                            let line = word.span().start().line;
                            self.uses.push(Use { segments, line, test: test || only_test });
                        }
                    }
                },
                _ => {}
            }
            at += 1;
        }
    }

    /// The tree of a `use`.
    fn declare(&mut self, tokens: &[TokenTree], prefix: &[String], test: bool) {
        for tree in tokens.split(|token| punct(Some(token), ',')).filter(|tree| !tree.is_empty()) {
            let mut segments = prefix.to_vec();
            let mut at = if joined(tree, 0) { 2 } else { 0 };
            let line = tree[0].span().start().line;
            loop {
                match tree.get(at) {
                    Some(TokenTree::Group(group)) => {
                        let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.declare(&inside, &segments, test);
                        break;
                    }
                    Some(TokenTree::Ident(name)) if name != "as" => segments.push(name.to_string()),
                    Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                        self.uses.push(Use { segments: segments.clone(), line, test });
                        self.globs.push(segments);
                        break;
                    }
                    _ => {
                        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
                            segments.pop();
                        }
                        let alias = ident(tree.get(at + 1)).or_else(|| segments.last().cloned());
                        self.imports.insert(alias.unwrap(), segments.clone());
                        self.uses.push(Use { segments, line, test });
                        break;
                    }
                }
                at += if joined(tree, at + 1) { 3 } else { 1 };
            }
        }
    }
}
