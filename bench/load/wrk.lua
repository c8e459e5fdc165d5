-- Run by wrk: sets the one request all connections repeat, and prints the whole latency histogram at the end.
-- wrk -s wrk.lua URL -- METHOD BODY-FILE|- NAME VALUE NAME VALUE ...
function init(args)
  wrk.method = args[1]
  if args[2] ~= "-" then
    local file = assert(io.open(args[2], "rb"))
    wrk.body = file:read("*a")
    file:close()
  end
  for i = 3, #args, 2 do wrk.headers[args[i]] = args[i + 1] end
end

-- latency(i) walks the histogram from its start each time. Where that would take longer than the run (a few answers after seconds),
-- the distribution is taken at 2,000 points instead, the last 1,000 of them above p99.
local function each(latency, total, emit)
  local values = #latency
  if values == 0 then return end
  if values * (latency.max - latency.min) < 4e8 then
    for i = 1, values do
      local value, count = latency(i)
      emit(value, count)
    end
    return
  end
  local last = 0
  for i = 1, 2000 do
    local quantile = i <= 1000 and i / 1000 * 0.99 or 0.99 + (i - 1000) / 1000 * 0.01
    local upTo = math.floor(quantile * total + 0.5)
    if upTo > last then emit(i == 2000 and latency.max or latency:percentile(quantile * 100), upTo - last) end
    last = upTo
  end
end

function done(summary, latency)
  local e = summary.errors
  local parts = {}
  each(latency, summary.requests, function(value, count) parts[#parts + 1] = value .. "," .. count end)
  io.write(string.format("\n@tidegate %d %d %d %d ", summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status))
  io.write(table.concat(parts, ";"), "\n")
end
