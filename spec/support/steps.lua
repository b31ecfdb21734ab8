--- How much work a call is: the instructions of Lua it takes, in tens. (What C does inside one of them is not seen.)
return function(run, ...)
  local count = 0
  if jit then jit.off() end -- machine code counts nothing
  debug.sethook(function() count = count + 1 end, "", 10)
  run(...)
  debug.sethook()
  if jit then jit.on() end
  return count
end
