// The scopes of a program, for static/tools/shrink.mjs.

/** Return for each local name those that must differ, because a scope knows both. */
export function conflictsOf(tree, locals) {
  const known = new Map(); // local name -> scopes that know it
  const declared = new Map(); // local name -> its scope
  const uses = []; // [local name, scope]
  const declare = (name, scope) => name && declared.set(name, scope);

  function bind(pattern, scope) {
    if (!pattern) return;
    if (pattern.type === "Identifier") declare(pattern.name, scope);
    pattern.properties?.forEach((it) => bind(it.value || it.argument, scope));
    pattern.elements?.forEach((it) => bind(it, scope));
    bind(pattern.left || pattern.argument, scope); // of a default, or the rest
  }

  function visit(node, outer, isBody) {
    if (!node?.type) return;
    let scope = outer;
    const isFunction = /Function/.test(node.type);
    if (isFunction || /^(Block|For|Catch|Class(Decl|Expr)|Program|Switch)/.test(node.type)) {
      if (!isBody) scope = { outer, isFunction: isFunction || !outer };
    }
    if (node.type === "VariableDeclaration") {
      let home = scope;
      while (node.kind === "var" && !home.isFunction) home = home.outer;
      node.declarations.forEach(({ id }) => bind(id, home));
    }
    if (node.type === "FunctionDeclaration") declare(node.id.name, outer);
    else if (isFunction || node.type === "ClassExpression") declare(node.id?.name, scope);
    if (isFunction) node.params.forEach((it) => bind(it, scope));
    if (node.type === "CatchClause") bind(node.param, scope);
    if (node.type === "Identifier") uses.push([node.name, scope]);
    const sharesScope = isFunction || node.type === "CatchClause"; // with its body
    for (const [key, value] of Object.entries(node)) {
      [value].flat().forEach((child) => visit(child, scope, sharesScope && key === "body"));
    }
  }

  visit(tree, null, false);
  for (const [name, home] of declared) {
    known.set(name, new Set([home]));
    for (const [used, from] of uses) {
      if (used !== name) continue;
      for (let scope = from; scope !== home; scope = scope.outer) known.get(name).add(scope);
    }
  }
  const differ = (a, b) => a !== b && [...known.get(a)].some((scope) => known.get(b).has(scope));
  return new Map(locals.map((a) => [a, locals.filter((b) => differ(a, b))]));
}
