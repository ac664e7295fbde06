-- Lines of a file as bodies, in turn. "PATH<tab>BODY" goes to PATH, a line without a tab to the path of the URL.
local bodies, at = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local path, body = line:match("^(/[^\t]*)\t(.*)$")
    table.insert(bodies, { path or wrk.path, body or line })
  end
  at = math.random(#bodies)
end

function request()
  at = at % #bodies + 1
  return wrk.format("POST", bodies[at][1], { ["Content-Type"] = "application/json" }, bodies[at][2])
end
