--- How much work a call is: the instructions of Lua it takes, in tens. (What C does inside one of them is not seen.)
return function(run, ...)
  local count = 0
  if jit then -- machine code counts nothing: neither new nor what earlier specs left
    jit.off()
    jit.flush()
  end
  debug.sethook(function() count = count + 1 end, "", 10)
  run(...)
  debug.sethook()
  if jit then jit.on() end
  return count
end
