-- each: an iterator over a list, as send_many takes it.
return function(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end
