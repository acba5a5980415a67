//! Finds what can be changed in a file.

use std::ops::Range;

use proc_macro2::Span;
use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprCall, ExprIf, ExprMethodCall, ExprRepeat, ImplItemFn, ItemFn,
    ItemImpl, ItemMod, Local, Signature, Stmt, TraitItemFn, UnOp,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{
    bodies,
    site::{Edit, Mutant, Site},
};

/// What a file holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Places to change, outer ones first.
    pub sites: Vec<Site>,
    /// Modules that have a file of their own, tests left out.
    pub modules: Vec<String>,
}

/// Looks through one file; `next` is the first free id.
///
/// # Errors
/// When it is no Rust.
pub fn find(path: &str, text: &str, next: &mut u32) -> Result<Found, syn::Error> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { path, text, next, functions: Vec::new(), found: Found::default() };
    finder.visit_file(&file);
    Ok(finder.found)
}

/// Calls that are easily taken one for the other.
const TWINS: [(&str, &str); 7] = [
    ("min", "max"),
    ("any", "all"),
    ("is_some_and", "is_none_or"),
    ("is_some", "is_none"),
    ("is_ok", "is_err"),
    ("saturating_add", "saturating_sub"),
    ("checked_add", "checked_sub"),
];

struct Finder<'a> {
    path: &'a str,
    text: &'a str,
    next: &'a mut u32,
    functions: Vec<String>,
    found: Found,
}

impl Finder<'_> {
    /// Takes `changes.len()` ids in a row.
    fn add(&mut self, at: Span, changes: &[String], edits: impl FnOnce(u32) -> Vec<Edit>) {
        let first = *self.next;
        *self.next += u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let start = at.start();
        self.found.sites.push(Site {
            path: self.path.to_owned(),
            line: start.line,
            column: start.column + 1,
            function: self.functions.last().cloned().unwrap_or_default(),
            source: self.text.lines().nth(start.line.saturating_sub(1)).unwrap_or_default().trim().to_owned(),
            mutants: (first..).zip(changes).map(|(id, change)| Mutant { id, change: change.clone() }).collect(),
            edits: edits(first),
        });
    }

    fn text_of(&self, node: &impl Spanned) -> &str {
        &self.text[node.span().byte_range()]
    }

    /// Goes into a function, unless it is a test or is evaluated by the compiler.
    fn function(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        if is_test(attributes) || signature.constness.is_some() {
            return;
        }
        self.functions.push(signature.ident.to_string());
        let start = block.brace_token.span.open().byte_range().end;
        let whole = self.text_of(block).trim_start_matches('{').trim_end_matches('}').trim().to_owned();
        for value in bodies::values(&signature.output) {
            // Spelt so already.
            if value == whole || (value == "()" && whole.is_empty()) {
                continue;
            }
            let change = [format!("body becomes {value}")];
            self.add(signature.ident.span(), &change, |id| {
                vec![before(start, format!(" if crate::mutants::is({id}) {{ return {value}; }} "))]
            });
        }
        visit::visit_block(self, block);
        self.functions.pop();
    }

    fn condition(&mut self, condition: &Expr) {
        match condition {
            // Of `a && let B = c && d`, what is no pattern.
            Expr::Binary(ExprBinary { left, op: BinOp::And(_), right, .. }) if binds(condition) => {
                self.condition(left);
                self.condition(right);
            }
            Expr::Let(_) => {}
            _ => {
                let changes = ["condition becomes true".to_owned(), "condition becomes false".to_owned()];
                self.add(condition.span(), &changes, |id| call(condition, "force", id));
            }
        }
    }

    fn binary(&mut self, e: &ExprBinary) {
        let operator = self.text_of(&e.op).to_owned();
        let becomes = |others: &[&str]| -> Vec<String> {
            let assigns =
                if operator.len() == 2 && operator.ends_with('=') && !is_comparison(&e.op) { "=" } else { "" };
            others.iter().map(|other| format!("`{operator}` becomes `{other}{assigns}`")).collect()
        };
        let (boundary, negated) = match e.op {
            BinOp::Eq(_) => return self.add(e.op.span(), &becomes(&["!="]), |id| call(e, "flip", id)),
            BinOp::Ne(_) => return self.add(e.op.span(), &becomes(&["=="]), |id| call(e, "flip", id)),
            BinOp::And(_) if !binds(&e.left) && !binds(&e.right) => return self.lazy(e, "==", "", &becomes(&["||"])),
            BinOp::Or(_) => return self.lazy(e, "!=", "!", &becomes(&["&&"])),
            BinOp::Lt(_) => ("<=", ">="),
            BinOp::Le(_) => ("<", ">"),
            BinOp::Gt(_) => (">=", "<="),
            BinOp::Ge(_) => (">", "<"),
            BinOp::Add(_) | BinOp::AddAssign(_) => ("-", "*"),
            BinOp::Sub(_) | BinOp::SubAssign(_) => ("+", "/"),
            BinOp::Mul(_) | BinOp::MulAssign(_) => ("+", "/"),
            BinOp::Div(_) | BinOp::DivAssign(_) => ("%", "*"),
            BinOp::Rem(_) | BinOp::RemAssign(_) => ("/", "+"),
            _ => return,
        };
        let (name, borrows) = match operator.as_str() {
            "<" => ("order::<'<', _, _>".to_owned(), ("&(", "&(")),
            "<=" => ("order::<'l', _, _>".to_owned(), ("&(", "&(")),
            ">" => ("order::<'>', _, _>".to_owned(), ("&(", "&(")),
            ">=" => ("order::<'g', _, _>".to_owned(), ("&(", "&(")),
            text if text.len() == 2 => (format!("arithmetic_in_place::<'{}', _>", &text[..1]), ("&mut (", "(")),
            text => (format!("arithmetic::<'{text}', _>"), ("(", "(")),
        };
        self.add(e.op.span(), &becomes(&[boundary, negated]), |id| {
            vec![
                Edit::Around(e.span().byte_range(), format!("crate::mutants::{name}({id}, {}", borrows.0), "))".into()),
                Edit::Instead(e.op.span().byte_range(), format!("), {}", borrows.1)),
            ]
        });
    }

    /// `&&` and `||`, either of which looks at its right side only when it must.
    fn lazy(&mut self, e: &ExprBinary, compare: &str, not: &str, changes: &[String]) {
        self.add(e.op.span(), changes, |id| {
            let is = format!("crate::mutants::is({id})");
            vec![
                Edit::Around(e.span().byte_range(), "(if (".to_owned(), " })".to_owned()),
                Edit::Instead(e.op.span().byte_range(), format!(") {compare} {is} {{ {not}{is} }} else {{ ")),
            ]
        });
    }

    /// The changed call as a whole beside the call: only one change is active at a time.
    fn twin(&mut self, e: &ExprMethodCall) {
        let method = e.method.to_string();
        let other = TWINS.iter().find_map(|(a, b)| match method.as_str() {
            name if name == *a => Some(*b),
            name if name == *b => Some(*a),
            _ => None,
        });
        let Some(other) = other else { return };
        let (whole, name) = (e.span().byte_range(), e.method.span().byte_range());
        let changed = format!("{}{other}{}", &self.text[whole.start..name.start], &self.text[name.end..whole.end]);
        self.add(e.method.span(), &[format!("`{method}` becomes `{other}`")], |id| {
            let before = format!("(if crate::mutants::is({id}) {{ {changed} }} else {{ ");
            vec![Edit::Around(whole, before, " })".to_owned())]
        });
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr(&mut self, e: &'ast Expr) {
        match e {
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                self.add(unary.op.span(), &["`!` is left out".to_owned()], |id| call(unary, "flip", id));
            }
            Expr::MethodCall(method) => self.twin(method),
            Expr::Let(binding) => return self.visit_expr(&binding.expr),
            Expr::Const(_) => return,
            _ => {}
        }
        visit::visit_expr(self, e);
    }

    fn visit_expr_if(&mut self, e: &'ast ExprIf) {
        self.condition(&e.cond);
        visit::visit_expr_if(self, e);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        if is_test(&arm.attrs) {
            return;
        }
        if let Some((_, guard)) = &arm.guard {
            let changes = ["guard becomes true".to_owned(), "guard becomes false".to_owned()];
            self.add(guard.span(), &changes, |id| call(guard, "force", id));
        }
        visit::visit_arm(self, arm);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if let Stmt::Expr(e, Some(_)) = statement
            && is_call(e)
        {
            self.add(e.span(), &["statement is left out".to_owned()], |id| {
                let before = format!("if !crate::mutants::is({id}) {{ ");
                vec![Edit::Around(statement.span().byte_range(), before, " }".to_owned())]
            });
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test(&module.attrs) {
            return;
        }
        if module.content.is_none() {
            self.found.modules.push(module.ident.to_string());
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_impl(&mut self, block: &'ast ItemImpl) {
        let of = block.trait_.as_ref().and_then(|(_, path, _)| path.segments.last()).map(|last| last.ident.to_string());
        // What people read is not what this is about.
        if !is_test(&block.attrs) && !matches!(of.as_deref(), Some("Debug" | "Display")) {
            visit::visit_item_impl(self, block);
        }
    }

    fn visit_item_fn(&mut self, f: &'ast ItemFn) {
        self.function(&f.attrs, &f.sig, &f.block);
    }

    fn visit_impl_item_fn(&mut self, f: &'ast ImplItemFn) {
        self.function(&f.attrs, &f.sig, &f.block);
    }

    fn visit_trait_item_fn(&mut self, f: &'ast TraitItemFn) {
        if let Some(block) = &f.default {
            self.function(&f.attrs, &f.sig, block);
        }
    }

    fn visit_expr_call(&mut self, e: &'ast ExprCall) {
        // How much room is made beforehand shows nowhere.
        let makes_room = matches!(&*e.func, Expr::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "with_capacity"));
        if !makes_room {
            visit::visit_expr_call(self, e);
        }
    }

    fn visit_expr_repeat(&mut self, e: &'ast ExprRepeat) {
        // Its length is a constant.
        self.visit_expr(&e.expr);
    }

    // What the compiler evaluates, and what does nothing at run time.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}
    fn visit_path_arguments(&mut self, _: &'ast syn::PathArguments) {}
    fn visit_angle_bracketed_generic_arguments(&mut self, _: &'ast syn::AngleBracketedGenericArguments) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
}

/// Hands a piece to a function of the runtime.
fn call(piece: &impl Spanned, function: &str, id: u32) -> Vec<Edit> {
    vec![Edit::Around(piece.span().byte_range(), format!("crate::mutants::{function}({id}, "), ")".to_owned())]
}

fn before(at: usize, text: String) -> Edit {
    Edit::Instead(Range { start: at, end: at }, text)
}

/// Whether a condition binds names somewhere in its chain.
fn binds(e: &Expr) -> bool {
    match e {
        Expr::Let(_) => true,
        Expr::Binary(ExprBinary { left, op: BinOp::And(_), right, .. }) => binds(left) || binds(right),
        _ => false,
    }
}

fn is_comparison(operator: &BinOp) -> bool {
    use BinOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(operator, Eq(_) | Ge(_) | Gt(_) | Le(_) | Lt(_) | Ne(_))
}

/// Whether a statement is a call, awaited or asked for its success or not. Not `drop`: what lives on without it is
/// borrowed still, so that the function does not compile.
fn is_call(e: &Expr) -> bool {
    match e {
        Expr::MethodCall(_) => true,
        Expr::Call(call) => !matches!(&*call.func, Expr::Path(path) if path.path.is_ident("drop")),
        Expr::Try(tried) => is_call(&tried.expr),
        Expr::Await(awaited) => is_call(&awaited.base),
        _ => false,
    }
}

/// `#[test]`, `#[cfg(test)]` and their like.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
        attribute.path().segments.last().is_some_and(|last| last.ident == "test")
            || (attribute.path().is_ident("cfg") && tokens.contains("test") && !tokens.contains("not"))
    })
}
